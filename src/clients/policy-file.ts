import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';
import { readRegular } from '../files/read-regular.ts';
import { type Policy, PolicySchema, policyOf } from './policy.ts';

/** The maximum size in bytes. A larger file is not a policy. */
const LARGEST = 2 ** 20;

/** The error of an invalid policy file, with every place that is wrong. */
export class PolicyError extends Error {
  /** One text for each place: `FILE:LINE:COLUMN: what is wrong`. */
  readonly places: readonly string[];

  constructor(places: readonly string[]) {
    super(places.join('\n'));
    this.name = 'PolicyError';
    this.places = places;
  }
}

/**
 * Reads a policy file, in YAML or JSON.
 * @throws {PolicyError} if the policy is not valid
 * @throws {Error} if the file cannot be read, or if a user other than root and the daemon's may change it
 */
export function readPolicy(path: string): Policy {
  const text = readRegular(path, ({ size, mode, uid }) => {
    if ((mode & 0o022) !== 0) throw new Error(`${path} may be changed by other users: chmod go-w it`);
    if (uid !== 0 && uid !== process.getuid!())
      throw new Error(`${path} belongs to neither root nor the daemon's user: chown it`);
    if (size > LARGEST) throw new Error(`${path} has ${size} bytes, and a policy has at most ${LARGEST}`);
  });
  return parsePolicy(text, path);
}

/**
 * Parses a policy.
 * @param name the file's name in error messages
 * @throws {PolicyError} if the policy is not valid
 */
export function parsePolicy(text: string, name: string): Policy {
  // Loaded on demand, which makes a start without a policy a tenth faster.
  const yaml = createRequire(import.meta.url)('yaml') as typeof Yaml;
  const lines = new yaml.LineCounter();
  const document = yaml.parseDocument(text, { lineCounter: lines, merge: true, stringKeys: true });
  const place = (offset: number, message: string): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}: ${message}`;
  };
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0)
    throw new PolicyError(broken.map(({ pos, message }) => place(pos[0], message.split('\n', 1)[0]!)));
  const result = PolicySchema.safeParse(contentsOf(document, (message) => new PolicyError([place(0, message)])));
  if (result.success) return policyOf(result.data);
  throw new PolicyError(
    result.error.issues.flatMap((issue) => {
      const path = issue.path.map(String);
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map((key) =>
          place(offsetOf(yaml, document, [...path, key]), `${[...path, key].join('.')}: unknown field`),
        );
      return [place(offsetOf(yaml, document, path), `${path.join('.') || 'policy'}: ${issue.message}`)];
    }),
  );
}

/** Resolves aliases; the parser refuses those that would expand without bound. */
function contentsOf(document: Yaml.Document, fail: (message: string) => PolicyError): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    throw fail((error as Error).message);
  }
}

/** Returns the offset of a path's key in the text, or that of its last existing part. */
function offsetOf(
  { isMap, isNode, isScalar, isSeq }: typeof Yaml,
  { contents }: Yaml.Document,
  path: readonly string[],
): number {
  let at: unknown = contents;
  let offset = isNode(at) ? (at.range?.[0] ?? 0) : 0;
  for (const step of path) {
    const pair = isMap(at) ? at.items.find(({ key }) => isScalar(key) && String(key.value) === step) : undefined;
    const value: unknown = isSeq(at) ? at.items[Number(step)] : pair?.value;
    const named = pair?.key ?? value;
    if (!isNode(named)) break;
    offset = named.range?.[0] ?? offset;
    at = value;
  }
  return offset;
}
