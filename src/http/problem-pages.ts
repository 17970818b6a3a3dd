import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type ProblemErrno, problemErrnos } from '../../schemas/vocabulary.ts';

const DOCUMENT = 'docs/reference/errors.md';

/** The section of each errno in the reference of errors. Read with the first request, so that no start waits for it. */
export class ProblemPages {
  #sections: Map<string, string> | null = null;

  /**
   * @returns Markdown with the errno as its heading
   * @throws {Error} where the installation lacks the document or the section
   */
  of(errno: ProblemErrno): string {
    this.#sections ??= sectionsOf(find(import.meta.dirname));
    const section = this.#sections.get(errno);
    if (section === undefined) throw new Error(`${DOCUMENT} has no section on ${errno}`);
    return section;
  }
}

/** The document lies above the sources and, built, above `dist` too. */
function find(directory: string): string {
  try {
    return readFileSync(join(directory, DOCUMENT), 'utf8');
  } catch (error) {
    if (directory === '/') throw error;
    return find(dirname(directory));
  }
}

function sectionsOf(text: string): Map<string, string> {
  const sections = text
    .split(/^(?=## )/m)
    .map((section) => [section.slice(3, section.indexOf('\n')), section] as const);
  return new Map(sections.filter(([heading]) => problemErrnos.includes(heading as ProblemErrno)));
}
