import { randomBytes } from 'node:crypto';
import { existsSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { writeWhole } from '../files/write-whole.ts';

/** How far seqs are reserved ahead: more events than a daemon that cannot write could keep in memory. */
const RESERVE = 10_000_000;

/** The file is written over in place, which a full disk allows, so it always has this length. */
const SIZE = 256;

const Record = z.object({ node: z.string(), key: z.base64url(), reserved: z.int().min(0) });

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
  readonly #fd: number;
  #reserved: number;

  /**
   * @param directory exists and is ours alone
   * @throws {Error} with its cure, where the file is there and cannot be read
   */
  constructor(directory: string) {
    const path = join(directory, 'node.json');
    if (!existsSync(path)) create(path);
    const { node, key, reserved } = read(path);
    this.node = node;
    this.key = Buffer.from(key, 'base64url');
    this.#reserved = reserved;
    this.#fd = openSync(path, 'r+');
  }

  /** No seq up to this one may be used again. */
  get reserved(): number {
    return this.#reserved;
  }

  /** Keeps what is reserved well ahead of the newest seq. */
  reserve(head: number): void {
    if (head + RESERVE / 2 > this.#reserved) this.#write(head + RESERVE);
  }

  /** A clean stop: all that was used is in the journal. */
  settle(head: number): void {
    this.#write(head);
  }

  #write(reserved: number): void {
    writeSync(this.#fd, textOf({ node: this.node, key: this.key.toString('base64url'), reserved }), 0);
    fdatasyncSync(this.#fd);
    this.#reserved = reserved;
  }
}

function create(path: string): void {
  const node = `n_${randomBytes(8).toString('hex')}`;
  writeWhole(path, textOf({ node, key: randomBytes(32).toString('base64url'), reserved: 0 }));
}

function textOf(record: z.infer<typeof Record>): string {
  return `${JSON.stringify(record).padEnd(SIZE - 1)}\n`;
}

function read(path: string): z.infer<typeof Record> {
  try {
    return Record.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    throw new Error(
      `${path} is damaged: restore it, or remove it, after which older cursors and handle ids mean nothing`,
    );
  }
}
