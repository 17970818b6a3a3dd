import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { MIGRATIONS, VERSION } from './schema.ts';

/** Bytes; what the write-ahead log is cut back to when it has been taken over. */
const LOG_LIMIT = 16 * 2 ** 20;

/** When it is taken over: with syncs of the disk, which take long, so not more often than must be. */
const CHECKPOINT_PAGES = 4000;

const NOTADB = 26;

/** What an error of SQLite's means for us: its primary result codes (sqlite.org/rescode.html). */
const kinds = new Map<number, 'disk' | 'damage'>([
  ...[5, 7, 8, 10, 13, 14].map((code) => [code, 'disk'] as const), // BUSY, NOMEM, READONLY, IOERR, FULL, CANTOPEN
  ...[11, NOTADB].map((code) => [code, 'damage'] as const), // CORRUPT, NOTADB
]);

/** @returns `disk` for what may pass, `damage` where the file is no sound journal, `null` for any other error */
export function kindOf(error: unknown): 'disk' | 'damage' | null {
  if (!(error instanceof Error && 'errcode' in error)) return null;
  // The low byte is the primary code, the rest says more.
  return kinds.get(Number(error.errcode) & 0xff) ?? null;
}

/** How many statements are kept prepared. Filters have thousands of shapes, of which few are used again. */
const MOST_STATEMENTS = 256;

/** The first version whose log has numbered lines. */
export const NUMBERED = 5;

/** The first bytes of every database, and where its header has the size of a page and how many there are (sqlite.org/fileformat.html). */
const MAGIC = 'SQLite format 3\0';
const PAGE_SIZE_AT = 16;
const PAGES_AT = 28;
const HEADER = 100;

/** The one SQLite file, and its prepared statements. */
export class Database {
  readonly path: string;
  #db: DatabaseSync;
  /** For a look at what is on disk. It is closed with the database: SQLite would lose its locks by an earlier close(2). */
  #fd: number;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * @param directory exists, is ours alone, and is locked
   * @throws {Error} for a journal of a later version; of SQLite's, see {@link kindOf}
   */
  constructor(directory: string) {
    this.path = join(directory, 'journal.sqlite');
    this.#db = open(this.path);
    this.#fd = openSync(this.path, 'r');
  }

  /** Of its tables, 0 where there are none yet. */
  get version(): number {
    return versionOf(this.#db);
  }

  /** Whether a transaction is open. */
  get isTransaction(): boolean {
    return this.#db.isTransaction;
  }

  /** Brings its tables to this version. */
  migrate(): void {
    migrate(this.#db);
  }

  /** @throws {Error} as SQLite does for a file that was damaged: where it was written over or truncated, which its cache does not show */
  requireHeader(): void {
    const header = Buffer.alloc(HEADER);
    // All may still be in the write-ahead log.
    if (readSync(this.#fd, header, 0, HEADER, 0) === 0 && this.#isEmpty) return;
    this.#isEmpty = false;
    const pageSize = header.readUInt16BE(PAGE_SIZE_AT);
    const size = header.readUInt32BE(PAGES_AT) * (pageSize === 1 ? 65536 : pageSize);
    if (header.toString('latin1', 0, MAGIC.length) !== MAGIC || fstatSync(this.#fd).size < size)
      throw Object.assign(new Error('the file of the tables was written over or truncated'), { errcode: NOTADB });
  }

  #isEmpty = true;

  /** A statement, prepared once for as long as it is among those that were used last. */
  statement(sql: string): StatementSync {
    const statement = this.#statements.get(sql) ?? this.#db.prepare(sql);
    // A map keeps its order: what is put in again goes to the end.
    this.#statements.delete(sql);
    this.#statements.set(sql, statement);
    if (this.#statements.size > MOST_STATEMENTS) this.#statements.delete(this.#statements.keys().next().value!);
    return statement;
  }

  /** All of it or nothing. */
  transaction(work: () => void): void {
    try {
      this.statement('BEGIN IMMEDIATE').run();
      work();
      this.statement('COMMIT').run();
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Puts the file aside under another name, and begins an empty one. @returns the other name */
  setAside(): string {
    this.#statements.clear();
    this.#close();
    const other = setAside(this.path);
    this.#db = open(this.path);
    this.#fd = openSync(this.path, 'r');
    this.#isEmpty = true;
    this.migrate();
    return other;
  }

  #close(): void {
    this.#db.close();
    closeSync(this.#fd);
  }

  /** Closes it. Where its file was removed meanwhile, what it held is put there again. */
  close(): void {
    const isRemoved = !existsSync(this.path);
    // SQLite itself leaves out the checkpoint of a close where the file was removed.
    if (isRemoved) this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    this.#statements.clear();
    this.#db.close();
    try {
      if (isRemoved) this.#putBack();
    } finally {
      closeSync(this.#fd);
    }
  }

  #putBack(): void {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    const beside = `${this.path}.new`;
    copyFileSync(`/proc/self/fd/${this.#fd}`, beside);
    chmodSync(beside, 0o600);
    renameSync(beside, this.path);
  }
}

/** Gives a file another name, which says why and when. */
export function setAsideFile(file: string): string {
  const other = `${file}.damaged-${new Date().toISOString().replaceAll(':', '')}`;
  renameSync(file, other);
  return other;
}

/** The file, beside its write-ahead log; the log's index is of no use to anybody. */
function setAside(file: string): string {
  const other = setAsideFile(file);
  for (const suffix of ['-wal', '-shm']) if (existsSync(file + suffix)) renameSync(file + suffix, other + suffix);
  return other;
}

/** Like {@link Database.setAside}, for one that cannot even be opened. */
export function setAsideIn(directory: string): string {
  return setAside(join(directory, 'journal.sqlite'));
}

/**
 * WAL with synchronous=NORMAL: nothing is lost when the daemon dies, only a power cut can take the last moments, and after
 * one every process is gone too.
 */
function open(file: string): DatabaseSync {
  // Made first, so that it is private wherever it lies; SQLite gives its -wal and -shm the same mode.
  closeSync(openSync(file, 'a', 0o600));
  const db = new DatabaseSync(file);
  try {
    db.exec(
      // Nobody else opens it, which the lock of the directory sees to: no locks on the file, and no index of the log in a file.
      `PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 0;
       PRAGMA journal_size_limit = ${LOG_LIMIT}; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};`,
    );
    requireKnown(versionOf(db));
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function requireKnown(version: number): void {
  if (version > VERSION)
    throw new Error(
      `the journal in the state directory is of version ${version}, this waitd reads up to ${VERSION}: use a newer one`,
    );
}

function migrate(db: DatabaseSync): void {
  const version = versionOf(db);
  if (version < VERSION)
    db.exec(
      `BEGIN; ${MIGRATIONS.slice(version).join('')} PRAGMA user_version = ${VERSION}; COMMIT; PRAGMA wal_checkpoint;`,
    );
}

function versionOf(db: DatabaseSync): number {
  return Number(db.prepare('PRAGMA user_version').get()?.user_version);
}

/** What a journal may want at its start. */
const ROOM = 2 ** 20;

/**
 * Whether something could be written beside the journal.
 * @throws {Error} ENOSPC, EROFS, EACCES, EIO
 */
export function checkRoom(directory: string): void {
  if (!existsSync(directory)) return;
  const file = join(directory, `check-${process.pid}`);
  try {
    writeFileSync(file, Buffer.alloc(ROOM), { flush: true, mode: 0o600 });
  } finally {
    rmSync(file, { force: true });
  }
}

/** Where the header of a database has its user_version, four bytes with the highest first (sqlite.org/fileformat.html). */
const USER_VERSION_AT = 60;

/**
 * Whether the journal in a directory could be read by this version, without touching it: a daemon has it to itself. Its header is
 * right at all times, as what changes it is taken over from the write-ahead log at once.
 * @throws {Error} in one sentence
 */
export function checkVersion(directory: string): void {
  const file = join(directory, 'journal.sqlite');
  if (!existsSync(file)) return;
  const fd = openSync(file, 'r');
  const header = Buffer.alloc(USER_VERSION_AT + 4);
  readSync(fd, header);
  closeSync(fd);
  // A damaged one is set aside.
  if (header.toString('latin1', 0, MAGIC.length) !== MAGIC) return;
  const version = header.readUInt32BE(USER_VERSION_AT);
  if (version > VERSION)
    throw new Error(`the journal is of version ${version}, which is later than this waitd's ${VERSION}`);
}
