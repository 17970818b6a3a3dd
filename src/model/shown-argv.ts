/** The bytes of arguments that a view or an event shows: as many as /proc showed before Linux 4.2. */
export const SHOWN_ARGV_BYTES = 4096;

/** The bytes of arguments that are stored. Each change of a process writes them, and a matcher compares no more. */
export const KEPT_ARGV_BYTES = 65_536;

/** The arguments of a process as clients see them. */
export interface ShownArgv {
  argv: readonly string[];
  argvTruncated?: true;
}

/**
 * Bounds the arguments that are shown. The kernel accepts megabytes, and every event and every entry of a list has a copy.
 * @param bytes the limit in UTF-8, with a NUL after each argument; the last argument may be cut short
 */
export function shownArgv(argv: readonly string[], bytes = SHOWN_ARGV_BYTES): ShownArgv {
  let left = bytes;
  for (const [at, argument] of argv.entries()) {
    // A character is at least one byte, so a long argument need not be measured.
    const size = argument.length >= left ? argument.length + 1 : Buffer.byteLength(argument) + 1;
    if (size > left) return { argv: [...argv.slice(0, at), ...beginningOf(argument, left)], argvTruncated: true };
    left -= size;
  }
  return { argv };
}

/** Returns the beginning of an argument; nothing if not even one character fits. */
function beginningOf(argument: string, bytes: number): string[] {
  // Half a surrogate pair, or part of a UTF-8 sequence, is not a character.
  const units = argument.slice(0, bytes).replace(/[\ud800-\udbff]$/, '');
  const text = new TextDecoder().decode(Buffer.from(units).subarray(0, bytes), { stream: true });
  return text === '' ? [] : [text];
}
