import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The version in package.json, which is above the sources and above `dist` in a built package. */
export const version: string = findVersion(import.meta.dirname);

function findVersion(directory: string): string {
  try {
    return (JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { version: string }).version;
  } catch (error) {
    if (directory === '/') throw error;
    return findVersion(dirname(directory));
  }
}
