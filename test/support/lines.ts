/**
 * Returns a numbered line. Tests write each line separately and reopen streams in between, to detect lost or mixed
 * output.
 */
export const lineOf = (n: number): string => `line ${n} of a stream that must be whole\n`;

/** Returns the first `count` lines. */
export function linesTo(count: number): string {
  let text = '';
  for (let n = 1; n <= count; n += 1) text += lineOf(n);
  return text;
}

/**
 * Returns a program that writes the lines.
 * @param path the file that it opens again for every tenth line; if omitted, it only uses its inherited descriptor
 */
export function writing(count: number, path: string | null = null): string[] {
  const part = Math.ceil(count / 10);
  const awk = `awk -v from="$from" -v to="$to" 'BEGIN { for (n = from; n <= to; n++) { print "line " n " of a stream that must be whole"; fflush() } }'`;
  const loop = `from=1; while [ $from -le ${count} ]; do to=$((from + ${part} - 1)); [ $to -le ${count} ] || to=${count}; ${awk}${path === null ? '' : ` > ${path}`} || exit 9; from=$((to + 1)); done`;
  return ['sh', '-c', loop];
}

/** Describes the first difference of two texts. @returns `null` if they are equal */
export function difference(found: string, wanted: string): string | null {
  if (found === wanted) return null;
  let at = 0;
  while (at < found.length && found[at] === wanted[at]) at += 1;
  const around = (text: string): string => JSON.stringify(text.slice(Math.max(0, at - 60), at + 60));
  return `${found.length} bytes for ${wanted.length}; at ${at} there is ${around(found)} for ${around(wanted)}`;
}
