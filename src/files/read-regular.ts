import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';

/**
 * Reads a settings file without blocking. A FIFO is refused, because opening one blocks until it has a writer.
 * @param check receives the file's status before it is read, and throws to refuse the file
 * @returns the text
 * @throws {Error} from Node.js, with a code; or with a message alone if the file is not a regular file
 */
export function readRegular(path: string, check: (facts: Stats) => void = () => {}): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const facts = fstatSync(fd);
    if (!facts.isFile()) throw new Error(`${path} is not a regular file`);
    check(facts);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
