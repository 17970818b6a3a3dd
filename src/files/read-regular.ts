import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';

/**
 * Reads a file of settings without ever waiting: a FIFO would hold its reader up until somebody writes to it.
 * @param look is shown what the file is before it is read, and may throw
 * @returns its text
 * @throws {Error} of Node, with its code; in one sentence where it is no regular file
 */
export function readRegular(path: string, look: (facts: Stats) => void = () => {}): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const facts = fstatSync(fd);
    if (!facts.isFile()) throw new Error(`${path} is no regular file`);
    look(facts);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
