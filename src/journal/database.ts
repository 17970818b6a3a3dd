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

/** The size in bytes to which SQLite truncates the write-ahead log after a checkpoint. */
const LOG_LIMIT = 16 * 2 ** 20;

/** The size of the write-ahead log at which SQLite makes a checkpoint. A checkpoint syncs the disk, which takes long, so it must be rare. */
const CHECKPOINT_PAGES = 4000;

const NOTADB = 26;

/** What SQLite's primary result codes mean here (sqlite.org/rescode.html). */
const kinds = new Map<number, 'disk' | 'damage'>([
  ...[5, 7, 8, 10, 13, 14].map((code) => [code, 'disk'] as const), // BUSY, NOMEM, READONLY, IOERR, FULL, CANTOPEN
  ...[11, NOTADB].map((code) => [code, 'damage'] as const), // CORRUPT, NOTADB
]);

/** @returns `disk` for an error that may pass, `damage` for a damaged file, `null` for any other error */
export function kindOf(error: unknown): 'disk' | 'damage' | null {
  if (!(error instanceof Error && 'errcode' in error)) return null;
  // The low byte of an extended result code is the primary one.
  return kinds.get(Number(error.errcode) & 0xff) ?? null;
}

/** The most statements that stay prepared. Filters have thousands of shapes, and few are used again. */
const MOST_STATEMENTS = 256;

/** The first version whose log has numbered lines. */
export const NUMBERED = 5;

/** The first bytes of every database, and the offsets of the page size and the number of pages in its header (sqlite.org/fileformat.html). */
const MAGIC = 'SQLite format 3\0';
const PAGE_SIZE_AT = 16;
const PAGES_AT = 28;
const HEADER = 100;

/** The SQLite file and its prepared statements. */
export class Database {
  readonly path: string;
  #db: DatabaseSync;
  /** Reads what is on disk. It is closed after the database: an earlier close(2) would release SQLite's locks. */
  #fd: number;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * @param directory the state directory, locked
   * @throws {Error} if the file is of a later version; errors of SQLite, see {@link kindOf}
   */
  constructor(directory: string) {
    this.path = join(directory, 'journal.sqlite');
    this.#db = open(this.path);
    this.#fd = openSync(this.path, 'r');
  }

  /** The version of the tables, 0 before they are created. */
  get version(): number {
    return versionOf(this.#db);
  }

  /** Whether a transaction is open. */
  get isTransaction(): boolean {
    return this.#db.isTransaction;
  }

  /** Brings the tables to the current version. */
  migrate(): void {
    migrate(this.#db);
  }

  /**
   * Checks on disk that the file was not overwritten or truncated: SQLite's cache would hide that.
   * @throws {Error} with SQLite's code for a damaged file
   */
  requireHeader(): void {
    const header = Buffer.alloc(HEADER);
    // All pages may still be in the write-ahead log.
    if (readSync(this.#fd, header, 0, HEADER, 0) === 0 && this.#isEmpty) return;
    this.#isEmpty = false;
    const pageSize = header.readUInt16BE(PAGE_SIZE_AT);
    const size = header.readUInt32BE(PAGES_AT) * (pageSize === 1 ? 65536 : pageSize);
    if (header.toString('latin1', 0, MAGIC.length) !== MAGIC || fstatSync(this.#fd).size < size)
      throw Object.assign(new Error('journal.sqlite was overwritten or truncated'), { errcode: NOTADB });
  }

  #isEmpty = true;

  /** Returns a prepared statement. The ones used last stay prepared. */
  statement(sql: string): StatementSync {
    const statement = this.#statements.get(sql) ?? this.#db.prepare(sql);
    // A map keeps the order of insertion, so the first key is the one used least recently.
    this.#statements.delete(sql);
    this.#statements.set(sql, statement);
    if (this.#statements.size > MOST_STATEMENTS) this.#statements.delete(this.#statements.keys().next().value!);
    return statement;
  }

  /** Does work in one transaction. @throws the error of the work, after a rollback */
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

  /** Renames the file and begins an empty one. @returns the new name of the old file */
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

  /** Closes the file, and restores it where it was removed in the meantime. */
  close(): void {
    const isRemoved = !existsSync(this.path);
    // Where the file was removed, SQLite closes it without a checkpoint.
    if (isRemoved) this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    this.#statements.clear();
    this.#db.close();
    try {
      if (isRemoved) this.#restore();
    } finally {
      closeSync(this.#fd);
    }
  }

  #restore(): void {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    const beside = `${this.path}.new`;
    copyFileSync(`/proc/self/fd/${this.#fd}`, beside);
    chmodSync(beside, 0o600);
    renameSync(beside, this.path);
  }
}

/** Renames a damaged file: the new name has the reason and the time. @returns the new name */
export function setAsideFile(file: string): string {
  const other = `${file}.damaged-${new Date().toISOString().replaceAll(':', '')}`;
  renameSync(file, other);
  return other;
}

/** Renames a database together with its write-ahead log and the index of that. @returns the new name */
function setAside(file: string): string {
  const other = setAsideFile(file);
  for (const suffix of ['-wal', '-shm']) if (existsSync(file + suffix)) renameSync(file + suffix, other + suffix);
  return other;
}

/** Renames the database of a state directory that cannot be opened. @returns the new name */
export function setAsideIn(directory: string): string {
  return setAside(join(directory, 'journal.sqlite'));
}

/**
 * Opens a database in WAL mode with synchronous=NORMAL: if the daemon dies, nothing is lost. A power cut can lose the last moments, but
 * it ends every process as well.
 */
function open(file: string): DatabaseSync {
  // Created first with a private mode; SQLite gives -wal and -shm the same mode.
  closeSync(openSync(file, 'a', 0o600));
  const db = new DatabaseSync(file);
  try {
    db.exec(
      // The lock of the directory keeps others away, so SQLite needs no locks on the file and no -shm file.
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
      `the journal in the state directory is of version ${version}, this waitd reads up to ${VERSION}: use a newer waitd`,
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

/** The bytes that a journal may need at its start. */
const ROOM = 2 ** 20;

/**
 * Checks that the state directory has room, by writing a file beside the journal.
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

/** The offset of user_version in the header of a database, four bytes in big-endian order (sqlite.org/fileformat.html). */
const USER_VERSION_AT = 60;

/**
 * Checks that this version can read the journal in a directory. It does not open the database, because a running daemon may have it open.
 * The header is always current: a checkpoint follows each migration at once.
 * @throws {Error} in one sentence
 */
export function checkVersion(directory: string): void {
  const file = join(directory, 'journal.sqlite');
  if (!existsSync(file)) return;
  const fd = openSync(file, 'r');
  const header = Buffer.alloc(USER_VERSION_AT + 4);
  readSync(fd, header);
  closeSync(fd);
  // The start will set a damaged file aside.
  if (header.toString('latin1', 0, MAGIC.length) !== MAGIC) return;
  const version = header.readUInt32BE(USER_VERSION_AT);
  if (version > VERSION)
    throw new Error(`the journal is of version ${version}, which is later than this waitd's ${VERSION}`);
}
