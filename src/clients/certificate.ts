/** The kinds of subjectAltName that name a client. An IP address says from where it comes, not who it is. */
const naming = new Set(['DNS', 'URI', 'email']);

/** One name as Node writes them: a kind, a colon, and a text without commas and quotes, or a JSON string. */
const ONE = /([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^",]*))(?:, |$)/y;

/** What is fit for logs and policies. */
const FIT = /^[\x21-\x7e]{1,255}$/;

/**
 * Who a certificate says it is: its first DNS, URI or email subjectAltName.
 *
 * A name may itself hold `, DNS:somebody-else`. Node quotes names that could be misread so (CVE-2021-44532), and what does not
 * read as such a list to its end names nobody.
 * @param subjectAltName as node:crypto's X509Certificate has it
 * @returns `null` where there is none, or the first is not fit to be a name
 */
export function certificateName(subjectAltName: string | undefined): string | null {
  let found: string | null = null;
  const text = subjectAltName ?? '';
  ONE.lastIndex = 0;
  for (let at = 0; at < text.length; at = ONE.lastIndex) {
    const match = ONE.exec(text);
    if (match === null) return null;
    const [, kind = '', quoted, plain = ''] = match;
    if (found === null && naming.has(kind)) found = quoted === undefined ? plain : unquoted(quoted);
  }
  return found !== null && FIT.test(found) ? found : null;
}

/** @returns the empty string, which names nobody, where it is no JSON */
function unquoted(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return '';
  }
}
