import { strict as assert } from 'node:assert';
import { blocksOf, document } from './documents.ts';

const DOCUMENT = document('docs/how-to/proxies.md');

/** Returns the text below a heading of docs/how-to/proxies.md. */
export function sectionOf(heading: string): string {
  const section = DOCUMENT.text.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  assert.ok(section !== undefined, `the document has a section ${heading}`);
  return section;
}

/** Returns the fenced blocks of a language below a heading. */
export function blocks(heading: string, language: string): string[] {
  return blocksOf({ ...DOCUMENT, text: sectionOf(heading) })
    .filter(({ info }) => info[0] === language)
    .map(({ code }) => code);
}

/** Returns the cells of a table's row after the first cell, which names it. */
export function rowOf(heading: string, first: string): string[] {
  const rows = sectionOf(heading)
    .split('\n')
    .map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.replaceAll('\\|', '|').trim()));
  const row = rows.find((cells) => cells[1] === first);
  assert.ok(row !== undefined, `the document has a row ${first}`);
  return row.slice(2, -1);
}

/** A text of a configuration, and its replacement. */
export type Change = readonly [from: string, to: string];

/**
 * Replaces texts of a configuration.
 * @throws {AssertionError} where one of them does not occur
 */
export function replaced(text: string, changes: readonly Change[]): string {
  return changes.reduce((before, [from, to]) => {
    assert.ok(before.includes(from), `the configuration has ${from}`);
    return before.replaceAll(from, to);
  }, text);
}
