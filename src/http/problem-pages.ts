import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type ProblemErrno, problemErrnos } from '../../schemas/vocabulary.ts';

const DOCUMENT = 'docs/reference/errors.md';

/** The sections of the error reference by errno. The document is read at the first request, to keep the start fast. */
export class ProblemPages {
  #sections: Map<string, string> | null = null;

  /**
   * Returns the section of an errno.
   * @returns Markdown with the errno as its heading
   * @throws {Error} if the installation lacks the document or the section
   */
  of(errno: ProblemErrno): string {
    this.#sections ??= sectionsOf(find(import.meta.dirname));
    const section = this.#sections.get(errno);
    if (section === undefined) throw new Error(`${DOCUMENT} has no section on ${errno}`);
    return section;
  }
}

/** Searches upwards for the document, which is above the sources and above `dist` in a built package. */
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
