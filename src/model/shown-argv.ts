/** How many bytes of its arguments a view or an event of a process shows: as many as Linux showed in /proc before 4.2. */
export const SHOWN_ARGV_BYTES = 4096;

/** How many bytes are kept of them: each change of a process writes them, and a matcher looks at no more. */
export const KEPT_ARGV_BYTES = 65_536;

/** The arguments of a process as clients see them. */
export interface ShownArgv {
  argv: readonly string[];
  argvTruncated?: true;
}

/**
 * Bounds the arguments that are shown. The kernel takes megabytes of them, and every event and every entry of a list has its copy.
 * @param bytes how many of them, counted as UTF-8 with the NUL after each argument; the last may be cut short
 */
export function shownArgv(argv: readonly string[], bytes = SHOWN_ARGV_BYTES): ShownArgv {
  let left = bytes;
  for (const [at, argument] of argv.entries()) {
    // A character is a byte at least, so a long argument need not be measured.
    const size = argument.length >= left ? argument.length + 1 : Buffer.byteLength(argument) + 1;
    if (size > left) return { argv: [...argv.slice(0, at), ...beginningOf(argument, left)], argvTruncated: true };
    left -= size;
  }
  return { argv };
}

/** @returns nothing where not even a character fits */
function beginningOf(argument: string, bytes: number): string[] {
  // A half of a pair, or of a sequence of UTF-8, is no character.
  const units = argument.slice(0, bytes).replace(/[\ud800-\udbff]$/, '');
  const text = new TextDecoder().decode(Buffer.from(units).subarray(0, bytes), { stream: true });
  return text === '' ? [] : [text];
}
