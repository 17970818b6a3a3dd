import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = join(import.meta.dirname, '../..');

/** One of the project's Markdown files. */
export interface Document {
  /** The path relative to the project's root. */
  path: string;
  text: string;
}

/** A fenced block. */
export interface Block {
  /** The words after the fence; the first is the language. */
  info: string[];
  code: string;
  /** The next block, if it shows the output: it follows directly, or after one paragraph that ends with a colon. */
  output: string | null;
}

export function document(path: string): Document {
  return { path, text: readFileSync(join(ROOT, path), 'utf8') };
}

/** Returns all documents for readers. */
export function documents(): Document[] {
  const below = readdirSync(join(ROOT, 'docs'), { recursive: true }).map((name) => join('docs', String(name)));
  const above = readdirSync(ROOT);
  return [...above, ...below].filter((path) => path.endsWith('.md')).map(document);
}

export function blocksOf({ text }: Document): Block[] {
  const fenced = [...text.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)];
  return fenced.map(({ index, 0: whole, 1: info = '', 2: code = '' }, place) => {
    const next = fenced[place + 1];
    const between = next === undefined ? '' : text.slice(index + whole.length, next.index);
    const isOutput = next !== undefined && /^(json|text)$/.test(next[1]!) && /^\s*([^\n#|][^#|]*:\s*)?$/.test(between);
    return { info: info.split(' '), code, output: isOutput ? next[2]! : null };
  });
}

/** Returns the anchors of a document's headings, as GitHub generates them. */
export function anchorsOf({ text }: Document): Set<string> {
  const headings = withoutCode(text).matchAll(/^#+ (.*)$/gm);
  return new Set([...headings].map(([, heading = '']) => anchorOf(heading)));
}

const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');

/** Returns the targets of relative links and pictures: a path relative to the project's root, and an anchor. */
export function linksOf({ path, text }: Document): { link: string; to: string; anchor: string | null }[] {
  return [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link = '']) => {
    if (/^[a-z]+:/.test(link)) return [];
    const [file = '', anchor = null] = link.split('#');
    const to = file === '' ? path : relative(ROOT, resolve(ROOT, dirname(path), file));
    return [{ link, to, anchor }];
  });
}

const withoutCode = (text: string): string => text.replaceAll(/^```[\s\S]*?^```$/gm, '');
