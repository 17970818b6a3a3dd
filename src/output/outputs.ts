import { closeSync, constants, fstatSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from '../clients/client.ts';
import { Reservation, requireQuota } from '../clients/quotas.ts';
import { isErrno } from '../kernel/errno.ts';
import { firstData, hasWriters, punchHole } from '../kernel/file.ts';
import { DirectoryWatch } from '../kernel/inotify.ts';
import type { Description, Stream } from '../processes/description.ts';
import type { LaunchFiles } from '../spawn/launch.ts';

/** Files that are written to all the time are looked at no more often than this. */
const LOOK_INTERVAL_MS = 20;

/** For how long it is looked again whether a file that somebody has closed is still written to. */
const LONGEST_DELAY_MS = 10_000;

/** When to look again where no file can be opened. */
const OUT_OF_DESCRIPTORS_MS = 1000;

/** Disks take whole blocks, and none has larger ones. */
const BLOCK = 65536;

/** The least that a captured stream may come to take of its client's quota: a file that is not empty has a block. */
const LEAST_FILE = 4096;

export interface OutputsParts {
  /** Exists, is ours alone. */
  directory: string;
  /** Bytes that are kept of each stream, the newest ones. */
  maxOutput: number;
  /** Bytes that a client may keep in all; `undefined` where that is not limited. */
  quotaOf(client: string): number | undefined;
}

/** A stream that is captured, and whoever may still write to it. */
interface Capture {
  id: number;
  streams: readonly Stream[];
  /** `null` once its handle is gone: what is written then is nobody's. */
  description: Description | null;
}

/**
 * What spawned processes write, in files that they write to themselves: no pipe, so nothing holds them up, and nothing is lost
 * when the daemon is not there. inotify tells of writes, and of the last writer's leaving; nothing is done while nobody writes.
 */
export class Outputs {
  readonly #directory: string;
  readonly #maxOutput: number;
  readonly #quotaOf: OutputsParts['quotaOf'];
  /** Whose each description is. */
  readonly #owners = new Map<number, string>();
  /** Bytes on disk, by the name of the file, and of each client in all. */
  readonly #kept = new Map<string, number>();
  readonly #keptOf = new Map<string, number>();
  readonly #watch: DirectoryWatch;
  /** By the journal's number of the description, those that may still be written to. */
  readonly #captures = new Map<number, Capture>();
  readonly #followers = new Map<string, Set<() => void>>();
  #pause: NodeJS.Timeout | null = null;
  #closed = false;
  /** Told when nobody can write to a description's streams any more. */
  onEnded: (description: Description) => void = () => {};
  /** How many bytes were dropped because of the limit. */
  dropped = 0;

  constructor({ directory, maxOutput, quotaOf }: OutputsParts) {
    this.#quotaOf = quotaOf;
    this.#directory = directory;
    this.#maxOutput = maxOutput;
    this.#watch = new DirectoryWatch(directory);
    this.#await();
  }

  pathOf(id: number, stream: Stream): string {
    return join(this.#directory, `${id}.${stream}`);
  }

  /** Where a new process writes what is captured. */
  filesFor(id: number): Pick<LaunchFiles, 'output'> {
    return { output: (stream) => this.pathOf(id, stream) };
  }

  /** Looks after what is captured of a process until its last writer is gone, from the spawn on or from a start of the daemon. */
  track(description: Description, client: string): void {
    const { id, output } = description;
    this.#owners.set(id, client);
    this.#captures.set(id, { id, streams: output.streams, description });
    for (const stream of output.streams) this.#note(id, stream);
    // Its end may have been before our time; of a new one the kernel tells later.
    this.#settle(id);
  }

  /** Bytes that are kept for a client, or have a place. */
  keptOf(client: string): number {
    return this.#keptOf.get(client) ?? 0;
  }

  #countKept(client: string, more: number): void {
    const bytes = this.keptOf(client) + more;
    if (bytes === 0) this.#keptOf.delete(client);
    else this.#keptOf.set(client, bytes);
  }

  /**
   * Takes the place of streams that are about to be captured.
   * @returns to be disposed of once they are tracked
   * @throws {Problem} EDQUOT where the client keeps enough
   */
  reserve({ name, quotas }: Client, streams: number): Reservation {
    // Of a quota that is smaller than that, one program may still write to all of it.
    const least = streams * Math.min(LEAST_FILE, Math.floor((quotas.outputBytes ?? 0) / Math.max(streams, 1)));
    if (streams > 0) requireQuota(quotas, 'outputBytes', this.keptOf(name) + Math.max(least, 1));
    this.#countKept(name, least);
    return new Reservation(() => this.#countKept(name, -least));
  }

  #note(id: number, stream: Stream): void {
    const client = this.#owners.get(id);
    if (client === undefined) return;
    const name = `${id}.${stream}`;
    const least = this.#captures.has(id) ? LEAST_FILE : 0;
    const bytes = Math.max(least, 512 * (statSync(this.pathOf(id, stream), { throwIfNoEntry: false })?.blocks ?? 0));
    this.#countKept(client, bytes - (this.#kept.get(name) ?? 0));
    if (bytes === 0) this.#kept.delete(name);
    else this.#kept.set(name, bytes);
  }

  /** Whether somebody can still write to what is captured. */
  isOpen(id: number): boolean {
    return this.#captures.has(id) && !this.#closed;
  }

  /** Nobody reads it any more: the files go, at once or with the last writer. */
  release({ id, output }: Description): void {
    const capture = this.#captures.get(id);
    if (capture === undefined) this.discard(id, output.streams);
    else {
      capture.description = null;
      for (const stream of capture.streams) this.#limit(capture, stream);
      this.#settle(id);
    }
  }

  /** Removes files that nobody writes to. */
  discard(id: number, streams: readonly Stream[]): void {
    for (const stream of streams) {
      rmSync(this.pathOf(id, stream), { force: true });
      this.#note(id, stream);
      this.#tell(`${id}.${stream}`);
    }
    this.#owners.delete(id);
  }

  /**
   * Releases what an earlier daemon left for handles that are gone.
   * @param known whose each description is that is not
   */
  sweep(known: ReadonlyMap<number, string>): void {
    for (const name of readdirSync(this.#directory)) {
      const [number, stream] = name.split('.') as [string, Stream];
      const id = Number(number);
      const client = known.get(id);
      if (client !== undefined) {
        this.#owners.set(id, client);
        this.#note(id, stream);
      } else if (!/^\d+\.(stdout|stderr)$/.test(name)) rmSync(join(this.#directory, name), { force: true });
      else this.#captures.set(id, { id, streams: ['stdout', 'stderr'], description: null });
    }
    for (const [id, { description }] of [...this.#captures]) if (description === null) this.#settle(id);
  }

  /**
   * Calls back whenever a stream was written to, or has reached its end.
   * @returns the end of it
   */
  follow(id: number, stream: Stream, callback: () => void): () => void {
    const name = `${id}.${stream}`;
    const followers = this.#followers.get(name) ?? new Set();
    this.#followers.set(name, followers.add(callback));
    return () => {
      followers.delete(callback);
      if (followers.size === 0) this.#followers.delete(name);
    };
  }

  /** Lets everybody go who follows. */
  close(): void {
    this.#closed = true;
    for (const name of this.#followers.keys()) this.#tell(name);
  }

  stop(): void {
    if (this.#pause !== null) clearTimeout(this.#pause);
    this.#watch.close();
  }

  #await(): void {
    this.#watch.once(() => {
      this.#look();
      this.#pause = setTimeout(() => this.#await(), LOOK_INTERVAL_MS);
    });
  }

  #look(): void {
    const { written, closed, overflow } = this.#watch.drain();
    if (overflow)
      for (const { id, streams } of this.#captures.values()) for (const each of streams) written.add(`${id}.${each}`);
    for (const name of written) {
      const [id, stream] = name.split('.') as [string, Stream];
      const capture = this.#captures.get(Number(id));
      if (capture !== undefined) {
        this.#note(capture.id, stream);
        this.#limit(capture, stream);
      }
      this.#tell(name);
    }
    for (const name of overflow ? written : closed) this.#settleSoon(Number.parseInt(name, 10));
  }

  /** inotify tells of a close a little before the kernel counts the writer off (fs/file_table.c, __fput). */
  #settleSoon(id: number, delay = LOOK_INTERVAL_MS): void {
    this.#settle(id);
    if (this.#captures.has(id) && delay <= LONGEST_DELAY_MS && !this.#closed)
      setTimeout(() => this.#settleSoon(id, 2 * delay), delay).unref();
  }

  /** Ends what nobody can write to any more. */
  #settle(id: number): void {
    const capture = this.#captures.get(id);
    if (capture === undefined || this.#isWritten(capture)) return;
    // Whoever was quick has ended before it was told that anything was written.
    this.#captures.delete(id);
    for (const stream of capture.streams) {
      this.#note(id, stream);
      this.#limit(capture, stream);
    }
    if (capture.description === null) this.discard(id, capture.streams);
    else this.onEnded(capture.description);
    for (const stream of capture.streams) this.#tell(`${id}.${stream}`);
  }

  #isWritten({ id, streams }: Capture): boolean {
    try {
      return streams.some((stream) => isWritten(this.pathOf(id, stream)));
    } catch (error) {
      if (!isErrno(error, 'EMFILE', 'ENFILE')) throw error;
      setTimeout(() => this.#settle(id), OUT_OF_DESCRIPTORS_MS).unref();
      return true;
    }
  }

  #tell(name: string): void {
    for (const callback of [...(this.#followers.get(name) ?? [])]) callback();
  }

  /** How much of a stream may be kept: what its client keeps of others is not there for it. */
  #room(id: number, stream: Stream): number {
    const client = this.#owners.get(id);
    const quota = client === undefined ? undefined : this.#quotaOf(client);
    if (quota === undefined) return this.#maxOutput;
    const others = this.keptOf(client!) - (this.#kept.get(`${id}.${stream}`) ?? 0);
    return Math.min(this.#maxOutput, Math.max(0, quota - others));
  }

  /** Gives back what is beyond the limit, from the beginning on; of what is nobody's, all. */
  #limit({ id, description }: Capture, stream: Stream): void {
    const limit = description === null ? 0 : this.#room(id, stream);
    const fd =
      sizeOf(this.pathOf(id, stream)) >= limit + BLOCK ? openIfThere(this.pathOf(id, stream), constants.O_RDWR) : null;
    if (fd === null) return;
    try {
      const end = Math.floor((fstatSync(fd).size - limit) / BLOCK) * BLOCK;
      // Seldom, and then more at a time.
      if (end <= 0) return;
      const from = firstData(fd) ?? end;
      if (end - from < (description === null ? 1 : Math.min(limit / 8, 2 ** 20))) return;
      punchHole(fd, from, end - from);
      this.dropped += end - from;
      this.#note(id, stream);
    } catch (error) {
      // Then its disk decides how large it grows.
      if (!isErrno(error, 'EOPNOTSUPP', 'EIO', 'EROFS')) throw error;
    } finally {
      closeSync(fd);
    }
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function isWritten(path: string): boolean {
  const fd = openIfThere(path, constants.O_RDONLY);
  if (fd === null) return false;
  try {
    return hasWriters(fd);
  } finally {
    closeSync(fd);
  }
}

function openIfThere(path: string, flags: number): number | null {
  try {
    return openSync(path, flags);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
}
