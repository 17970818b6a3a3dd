import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';
import { readRegular } from '../files/read-regular.ts';
import { type Policy, PolicySchema, policyOf } from './policy.ts';

/** A policy is a page of text; what is larger is something else. */
const LARGEST = 2 ** 20;

/** A policy file that does not fit, with every place where it does not. */
export class PolicyError extends Error {
  /** Each as `FILE:LINE:COLUMN: what is wrong`. */
  readonly places: readonly string[];

  constructor(places: readonly string[]) {
    super(places.join('\n'));
    this.name = 'PolicyError';
    this.places = places;
  }
}

/**
 * Reads a policy file, which is YAML or JSON.
 * @throws {PolicyError} where it does not fit; {Error} where it cannot be read, or others than its owner may change it
 */
export function readPolicy(path: string): Policy {
  const text = readRegular(path, ({ size, mode, uid }) => {
    if ((mode & 0o022) !== 0) throw new Error(`${path} may be changed by others than its owner: chmod go-w it`);
    if (uid !== 0 && uid !== process.getuid!())
      throw new Error(`${path} is owned by neither root nor the daemon's user: chown it`);
    if (size > LARGEST) throw new Error(`${path} is over ${LARGEST} bytes`);
  });
  return parsePolicy(text, path);
}

/** @param name of the file, for what is said of it */
export function parsePolicy(text: string, name: string): Policy {
  // Only now: a start without a policy is a tenth of its time faster.
  const yaml = createRequire(import.meta.url)('yaml') as typeof Yaml;
  const lines = new yaml.LineCounter();
  const document = yaml.parseDocument(text, { lineCounter: lines, merge: true, stringKeys: true });
  const place = (offset: number, message: string): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}: ${message}`;
  };
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0)
    throw new PolicyError(broken.map(({ pos, message }) => place(pos[0], message.split('\n', 1)[0]!)));
  const result = PolicySchema.safeParse(contentsOf(document, (message) => new PolicyError([place(0, message)])));
  if (result.success) return policyOf(result.data);
  throw new PolicyError(
    result.error.issues.flatMap((issue) => {
      const path = issue.path.map(String);
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map((key) =>
          place(offsetOf(yaml, document, [...path, key]), `${[...path, key].join('.')}: is not known`),
        );
      return [place(offsetOf(yaml, document, path), `${path.join('.') || 'policy'}: ${issue.message}`)];
    }),
  );
}

/** Aliases that would grow without bound are an error of their own. */
function contentsOf(document: Yaml.Document, fail: (message: string) => PolicyError): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    throw fail((error as Error).message);
  }
}

/** Where in the text the key of a path stands, or of as much of it as there is. */
function offsetOf(
  { isMap, isNode, isScalar, isSeq }: typeof Yaml,
  { contents }: Yaml.Document,
  path: readonly string[],
): number {
  let at: unknown = contents;
  let offset = isNode(at) ? (at.range?.[0] ?? 0) : 0;
  for (const step of path) {
    const pair = isMap(at) ? at.items.find(({ key }) => isScalar(key) && String(key.value) === step) : undefined;
    const value: unknown = isSeq(at) ? at.items[Number(step)] : pair?.value;
    const named = pair?.key ?? value;
    if (!isNode(named)) break;
    offset = named.range?.[0] ?? offset;
    at = value;
  }
  return offset;
}
