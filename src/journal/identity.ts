import { randomBytes } from 'node:crypto';
import { existsSync, fdatasyncSync, fstatSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** How far seqs are reserved ahead: more events than a daemon that cannot write could keep in memory. */
export const RESERVE = 10_000_000;

/** The file is written over in place, which a full disk allows, so it always has this length. */
const SIZE = 256;

const KEY_BYTES = 32;

/** What one image of the daemon hands to the next, whatever has become of the file. */
export const IdentityFacts = z.object({
  node: z.string().regex(/^n_[0-9a-f]{16}$/),
  key: z
    .base64url()
    .refine((key) => Buffer.from(key, 'base64url').length === KEY_BYTES, `must be ${KEY_BYTES} bytes of base64url`),
  reserved: z.int().min(0),
});
export type IdentityFacts = z.infer<typeof IdentityFacts>;

const Record = IdentityFacts.extend({
  /** The number of the last log line, where the daemon has stopped cleanly. */
  line: z.int().min(0).nullable().default(null),
  /** When this very file was made, so that a copy of it is known as one. */
  birth: z.string().optional(),
});
type Record = z.infer<typeof Record>;

/**
 * What this node is, beside its journal so that it outlives a damaged one: its name, the key that its handles' ids are made
 * with, and up to where it may have used seqs.
 *
 * A daemon that cannot write goes on telling events from memory. If it dies then, those seqs are known to subscribers and to
 * no disk. So seqs are reserved well ahead, and a start that follows no clean stop goes on behind what was reserved.
 */
export class Identity {
  /** With another name, cursors mean nothing. */
  readonly node: string;
  readonly key: Buffer;
  readonly path: string;
  /** Whether the file was missing, and there is a new node. */
  readonly isNew: boolean;
  /** Whether the file was restored from a backup, or copied from elsewhere. */
  readonly isCopy: boolean;
  /** The number of the last log line before a clean stop, `null` after anything else. */
  readonly stoppedAt: number | null;
  readonly #fd: number;
  #reserved: number;

  /**
   * @param directory exists and is ours alone
   * @param handed by the image before, whose word counts more than the file's; `null` at a start
   * @throws {Error} with its cure, where the file cannot be read, or is damaged
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

  /** No seq up to this one may be used again. */
  get reserved(): number {
    return this.#reserved;
  }

  get facts(): IdentityFacts {
    return { node: this.node, key: this.key.toString('base64url'), reserved: this.#reserved };
  }

  /** Keeps what is reserved well ahead of the newest seq. */
  reserve(head: number): void {
    if (head + RESERVE / 2 > this.#reserved) this.#write(this.#fd, { reserved: head + RESERVE, line: null });
  }

  /** Records a clean stop: all that was used is in the journal, whose last log line was this one. */
  settle(head: number, line: number): void {
    this.#write(this.#fd, { reserved: head, line });
  }

  /** The file is there whole or not at all, whenever the daemon dies. */
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

/** Tells a file from its copies: by its time of birth, which nobody can set, or where the file system keeps none by its inode. */
function birthOf(fd: number): string {
  const { birthtimeNs, ino } = fstatSync(fd, { bigint: true });
  return birthtimeNs > 0n ? String(birthtimeNs) : `i${ino}`;
}

/**
 * Reads the identity in a directory, if there is one, and changes nothing.
 * @throws {Error} with its cure, where it cannot be read
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
