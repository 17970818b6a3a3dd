/** The kinds of subjectAltName that identify a client. An IP address identifies a machine instead. */
const naming = new Set(['DNS', 'URI', 'email']);

/** One name as Node.js writes it: a kind, a colon, and either a text without commas and quotes or a JSON string. */
const ONE = /([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^",]*))(?:, |$)/y;

/** Names that are safe in logs and policies. */
const FIT = /^[\x21-\x7e]{1,255}$/;

/**
 * Returns the client name of a certificate: its first DNS, URI or email subjectAltName.
 *
 * A name may itself contain `, DNS:another-name`. Node.js quotes such names (CVE-2021-44532), and a list that does not parse to its end
 * is refused.
 * @param subjectAltName in the format of X509Certificate in node:crypto
 * @returns `null` if the certificate has no such name, or if the first one is not valid
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

/** @returns the empty string, which is not a valid name, if the text is not JSON */
function unquoted(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return '';
  }
}
