import { randomBytes } from 'node:crypto';
import { existsSync, fdatasyncSync, fstatSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** How many seqs are reserved ahead: more events than a daemon that cannot write could hold in memory. */
export const RESERVE = 10_000_000;

/** The length of the file in bytes. It is constant: a full disk allows to overwrite a file in place. */
const SIZE = 256;

const KEY_BYTES = 32;

/** What one image of the daemon passes to the next, so that nothing depends on the state of the file. */
export const IdentityFacts = z.object({
  node: z.string().regex(/^n_[0-9a-f]{16}$/),
  key: z
    .base64url()
    .refine((key) => Buffer.from(key, 'base64url').length === KEY_BYTES, `must be ${KEY_BYTES} bytes of base64url`),
  reserved: z.int().min(0),
});
export type IdentityFacts = z.infer<typeof IdentityFacts>;

const Record = IdentityFacts.extend({
  /** The number of the last log line after a clean stop, `null` before one. */
  line: z.int().min(0).nullable().default(null),
  /** Identifies this file, to recognize a copy of it. */
  birth: z.string().optional(),
});
type Record = z.infer<typeof Record>;

/**
 * The identity of this node in node.json: its name, the key with which ids of handles are made, and the seqs that it may have used. It
 * lies beside the journal, so it outlives a damaged one.
 *
 * A daemon that cannot write still sends events from memory. If it dies then, subscribers know seqs that no file has. So seqs are
 * reserved ahead, and a start without a clean stop before it continues after the reserved ones.
 */
export class Identity {
  /** The name of the node. Cursors of another node mean nothing here. */
  readonly node: string;
  readonly key: Buffer;
  readonly path: string;
  /** Whether the file was missing, so that this is a new node. */
  readonly isNew: boolean;
  /** Whether the file was restored from a backup, or copied from another machine. */
  readonly isCopy: boolean;
  /** The number of the last log line before a clean stop, `null` where the daemon did not stop cleanly. */
  readonly stoppedAt: number | null;
  readonly #fd: number;
  #reserved: number;

  /**
   * @param directory the state directory, locked
   * @param handed the facts of the previous image, which take precedence over the file; `null` at a start
   * @throws {Error} with the remedy, if the file cannot be read or is damaged
   */
  constructor(directory: string, handed: IdentityFacts | null) {
    const path = join(directory, 'node.json');
    const exists = existsSync(path);
    const found = exists && handed === null ? read(path) : null;
    const record = found ?? { ...(handed ?? newNode()), line: null };
    this.path = path;
    this.node = record.node;
    this.key = Buffer.from(record.key, 'base64url');
    this.#reserved = record.reserved;
    this.isNew = !exists && handed === null;
    this.#fd = exists ? openSync(path, 'r+') : this.#create(path);
    this.isCopy = found?.birth !== undefined && found.birth !== birthOf(this.#fd);
    this.stoppedAt = found?.line ?? null;
  }

  /** The last reserved seq. None up to it may be used again. */
  get reserved(): number {
    return this.#reserved;
  }

  get facts(): IdentityFacts {
    return { node: this.node, key: this.key.toString('base64url'), reserved: this.#reserved };
  }

  /** Reserves seqs, so that many more than the newest one are reserved. */
  reserve(head: number): void {
    if (head + RESERVE / 2 > this.#reserved) this.#write(this.#fd, { reserved: head + RESERVE, line: null });
  }

  /** Records a clean stop: the journal has all used seqs. @param line the number of the last log line */
  settle(head: number, line: number): void {
    this.#write(this.#fd, { reserved: head, line });
  }

  /** Creates the file with a rename: if the daemon dies, the file is complete or missing. */
  #create(path: string): number {
    const beside = `${path}.new`;
    rmSync(beside, { force: true });
    const fd = openSync(beside, 'wx+', 0o600);
    this.#write(fd, { reserved: this.#reserved, line: null });
    renameSync(beside, path);
    return fd;
  }

  #write(fd: number, { reserved, line }: Pick<Record, 'reserved' | 'line'>): void {
    const record: Record = { ...this.facts, reserved, line, birth: birthOf(fd) };
    writeSync(fd, `${JSON.stringify(record).padEnd(SIZE - 1)}\n`, 0);
    fdatasyncSync(fd);
    this.#reserved = reserved;
  }
}

/** Identifies a file among its copies: by its time of birth, which cannot be set, or on file systems without one by its inode. */
function birthOf(fd: number): string {
  const { birthtimeNs, ino } = fstatSync(fd, { bigint: true });
  return birthtimeNs > 0n ? String(birthtimeNs) : `i${ino}`;
}

/**
 * Checks that the identity in a directory can be read, where one exists. Changes nothing.
 * @throws {Error} with the remedy
 */
export function checkIdentity(directory: string): void {
  const path = join(directory, 'node.json');
  if (existsSync(path)) read(path);
}

function newNode(): IdentityFacts {
  const [node, key] = [randomBytes(8).toString('hex'), randomBytes(KEY_BYTES).toString('base64url')];
  return { node: `n_${node}`, key, reserved: 0 };
}

function read(path: string): Record {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Error(`${path} cannot be read (${(error as NodeJS.ErrnoException).code}): correct its permissions`);
  }
  const cure = 'restore it, or remove it, after which older cursors and handle ids mean nothing';
  try {
    const { data, error } = Record.safeParse(JSON.parse(text));
    if (data !== undefined) return data;
    const [issue] = error.issues;
    throw new Error(`"${issue!.path.join('.')}": ${issue!.message}`);
  } catch (error) {
    throw new Error(`${path} is damaged (${(error as Error).message}): ${cure}`);
  }
}
