import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Client } from '../clients/client.ts';
import { Reservation, requireQuota } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import { Descriptor, keepBelow } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { firstData } from '../kernel/file.ts';
import { makePipe } from '../kernel/pipe.ts';
import { Listeners } from '../model/listeners.ts';
import type { OpenDescription, Stream } from '../model/process.ts';
import { CapturedStream } from './captured-stream.ts';
import type { Keeper } from './keeper.ts';
import { MoveQueue } from './move-queue.ts';

/** What disks take files in, so that a stream that can still be written to may come to take as much. */
const DISK_BLOCK = 4096;

export interface OutputsParts {
  /** Exists, is ours alone. */
  directory: string;
  /** Bytes that are kept of each stream, the newest ones. */
  maxOutput: number;
  /** Pipes take no descriptor with this number or a higher one. */
  descriptors: number;
  /** Bytes that a client may keep in all; `undefined` where that is not limited. */
  quotaOf(client: string): number | undefined;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'rearm' | 'remove'>;
  keeper: Keeper;
}

/** What of a process is captured and may still be written to. */
interface Capture {
  streams: Map<Stream, CapturedStream>;
  /** `null` while its process is only starting, and once its handle is gone. */
  description: OpenDescription | null;
}

/** The write ends for a new process. They are closed when it has them. */
export class WriteEnds implements Disposable {
  readonly #ends: ReadonlyMap<Stream, Descriptor>;

  constructor(ends: ReadonlyMap<Stream, Descriptor>) {
    this.#ends = ends;
  }

  readonly of = (stream: Stream): Descriptor => this.#ends.get(stream)!;

  [Symbol.dispose](): void {
    for (const end of this.#ends.values()) end.close();
  }
}

/**
 * What spawned processes write: a pipe for each captured stream, which the daemon moves to a file. A full pipe holds up the program,
 * not the daemon. The keeper holds the pipes while there is no daemon.
 */
export class Outputs {
  readonly #parts: OutputsParts;
  readonly #moves = new MoveQueue();
  readonly #nothing = new Descriptor(openSync('/dev/null', constants.O_WRONLY));
  /** The largest pipe that a program without privileges can make of its own. */
  readonly #largestPipe = Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8'));
  /** Whose each description is. */
  readonly #owners = new Map<number, string>();
  /** Bytes on disk, by the name of the file, and of each client in all. */
  readonly #kept = new Map<string, number>();
  readonly #keptOf = new Map<string, number>();
  /** By the journal's number of the description. */
  readonly #captures = new Map<number, Capture>();
  readonly #followers = new Map<string, Set<() => void>>();
  #closed = false;
  readonly #ended = new Listeners<[description: OpenDescription]>();
  /** How many bytes were dropped because of the limit. */
  dropped = 0;

  constructor(parts: OutputsParts) {
    this.#parts = parts;
  }

  /** Subscribes to descriptions whose captured streams have all ended. @returns a function that ends the subscription */
  onEnded(listener: (description: OpenDescription) => void): () => void {
    return this.#ended.on(listener);
  }

  pathOf(id: number, stream: Stream): string {
    return join(this.#parts.directory, `${id}.${stream}`);
  }

  /**
   * Makes the pipes for a process that is about to start. They are given up by {@link discard} where it does not.
   * @throws {Problem} ENOSPC; {SystemError} EMFILE, ENFILE, EAGAIN, ENOMEM
   */
  async open(id: number, client: string, streams: readonly Stream[]): Promise<WriteEnds> {
    this.discard(id, streams);
    if (streams.length === 0) return new WriteEnds(new Map());
    this.#owners.set(id, client);
    const made = new Map<Stream, CapturedStream>();
    const ends = new Map<Stream, Descriptor>();
    this.#captures.set(id, { streams: made, description: null });
    try {
      for (const stream of streams) {
        const { reader, writer } = makePipe();
        ends.set(stream, writer);
        made.set(stream, this.#stream(id, stream, reader, { size: 0, first: 0 }));
        reader.nonblocking = true;
        keepBelow(reader, this.#parts.descriptors);
        mkdirSync(this.#parts.directory, { recursive: true, mode: 0o700 });
        closeSync(openSync(this.pathOf(id, stream), 'wx', 0o600));
        await this.#parts.keeper.hold(`${id}.${stream}`, reader);
      }
      return new WriteEnds(ends);
    } catch (error) {
      new WriteEnds(ends)[Symbol.dispose]();
      this.discard(id, streams);
      if (!isErrno(error, 'ENOSPC', 'EDQUOT', 'EROFS', 'EIO')) throw error;
      const detail =
        'Output cannot be captured, since the disk takes no file: free space on it, or spawn without "capture".';
      throw new Problem('ENOSPC', detail, { syscall: 'posix_spawn', retry: { afterMs: 1000 } });
    }
  }

  #stream(id: number, stream: Stream, reader: Descriptor, extent: { size: number; first: number }): CapturedStream {
    const name = `${id}.${stream}`;
    return new CapturedStream(this.#owners.get(id) ?? name, {
      ...extent,
      reader,
      path: this.pathOf(id, stream),
      epoll: this.#parts.epoll,
      moves: this.#moves,
      nothing: this.#nothing,
      room: () => this.#room(id, name),
      onChange: (dropped) => {
        this.dropped += dropped;
        this.#noteExtent(id, stream);
        this.#tell(name);
      },
      onEnd: () => {
        this.#parts.keeper.release(name);
        this.#noteExtent(id, stream);
        this.#endIfOver(id);
        this.#tell(name);
      },
    });
  }

  /** Looks after what is captured of a process until its last writer is gone, from the spawn on or from a start of the daemon. */
  track(description: OpenDescription, client: string): void {
    const { id } = description;
    this.#owners.set(id, client);
    const capture = this.#captures.get(id);
    if (capture === undefined) this.#ended.emit(description);
    else {
      capture.description = description;
      for (const [name, stream] of capture.streams) {
        this.#noteExtent(id, name);
        stream.start();
      }
    }
  }

  #endIfOver(id: number): void {
    const capture = this.#captures.get(id);
    if (capture === undefined || [...capture.streams.values()].some(({ open }) => open)) return;
    this.#captures.delete(id);
    if (capture.description !== null) this.#ended.emit(capture.description);
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
    const least = streams * Math.min(DISK_BLOCK, Math.floor((quotas.outputBytes ?? 0) / Math.max(streams, 1)));
    if (streams > 0) requireQuota(quotas, 'outputBytes', this.keptOf(name) + Math.max(least, 1));
    this.#countKept(name, least);
    return new Reservation(() => this.#countKept(name, -least));
  }

  #noteExtent(id: number, stream: Stream): void {
    const { size, first, open } = this.streamOf(id, stream)!;
    this.#note(id, stream, Math.max(open ? 1 : 0, Math.ceil((size - first) / DISK_BLOCK)) * DISK_BLOCK);
  }

  #note(id: number, stream: Stream, bytes: number): void {
    const client = this.#owners.get(id);
    if (client === undefined) return;
    const name = `${id}.${stream}`;
    this.#countKept(client, bytes - (this.#kept.get(name) ?? 0));
    if (bytes === 0) this.#kept.delete(name);
    else this.#kept.set(name, bytes);
  }

  /** A stream that may still be written to; `undefined` once it has ended. */
  streamOf(id: number, stream: Stream): CapturedStream | undefined {
    return this.#captures.get(id)?.streams.get(stream);
  }

  /** Whether somebody can still write to a stream. */
  isOpen(id: number, stream: Stream): boolean {
    return !this.#closed && (this.streamOf(id, stream)?.open ?? false);
  }

  /** Resolves when all that was written to a stream before this call can be read, or cannot be written to the disk for now. */
  async flush(id: number, stream: Stream): Promise<void> {
    await this.streamOf(id, stream)?.flush(this.#largestPipe);
  }

  /** The same for all streams, within a time: for a daemon that stops. */
  async flushAll(graceMs: number): Promise<void> {
    const streams = [...this.#captures.values()].flatMap((capture) => [...capture.streams.values()]);
    const flushed = Promise.all(streams.map((stream) => stream.flush(this.#largestPipe)));
    await Promise.race([flushed, setTimeout(graceMs, undefined, { ref: false })]);
  }

  /** Why a stream cannot be written down now, `null` while all are well. */
  get fault(): Error | null {
    for (const { streams } of this.#captures.values())
      for (const { fault } of streams.values()) if (fault !== null) return fault;
    return null;
  }

  /** Nobody reads it any more: the files go now, and what is still written is dropped. */
  release({ id, output }: OpenDescription): void {
    this.#remove(id, output.streams);
  }

  /** Gives up what {@link open} has made. */
  discard(id: number, streams: readonly Stream[]): void {
    for (const [stream, captured] of this.#captures.get(id)?.streams ?? []) {
      captured.close();
      this.#parts.keeper.release(`${id}.${stream}`);
    }
    this.#captures.delete(id);
    this.#remove(id, streams);
  }

  #remove(id: number, streams: readonly Stream[]): void {
    const capture = this.#captures.get(id);
    if (capture !== undefined) capture.description = null;
    for (const stream of streams) {
      const captured = capture?.streams.get(stream);
      if (captured === undefined) rmSync(this.pathOf(id, stream), { force: true });
      else captured.discard();
      this.#note(id, stream, 0);
      this.#tell(`${id}.${stream}`);
    }
    this.#owners.delete(id);
  }

  /** Takes up the pipes that an earlier daemon left with the keeper. */
  resume(): void {
    for (const [name, reader] of this.#parts.keeper.resume()) {
      const { id, stream } = parse(name)!;
      const capture = this.#captures.get(id) ?? { streams: new Map(), description: null };
      this.#captures.set(id, capture);
      capture.streams.set(stream, this.#stream(id, stream, reader, extentOf(this.pathOf(id, stream))));
    }
  }

  /**
   * Releases what an earlier daemon left for handles that are gone.
   * @param known whose each description is that is not
   */
  sweep(known: ReadonlyMap<number, string>): void {
    for (const [id, client] of known) this.#owners.set(id, client);
    for (const name of readdirSync(this.#parts.directory)) {
      const { id, stream } = parse(name) ?? {};
      if (id === undefined || stream === undefined || !known.has(id))
        rmSync(join(this.#parts.directory, name), { force: true });
      else this.#note(id, stream, 512 * statSync(this.pathOf(id, stream)).blocks);
    }
    for (const [id, { streams }] of this.#captures) {
      const client = known.get(id);
      for (const stream of streams.values()) {
        if (client !== undefined) {
          stream.client = client;
          continue;
        }
        stream.discard();
        stream.start();
      }
    }
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

  /** Leaves what is still written to the next daemon. */
  stop(): void {
    for (const { streams } of this.#captures.values()) for (const stream of streams.values()) stream.stop();
  }

  #tell(name: string): void {
    for (const callback of [...(this.#followers.get(name) ?? [])]) callback();
  }

  /** How much of a stream may be kept: what its client keeps of others is not there for it. */
  #room(id: number, name: string): number {
    const client = this.#owners.get(id);
    const quota = client === undefined ? undefined : this.#parts.quotaOf(client);
    if (quota === undefined) return this.#parts.maxOutput;
    const others = this.keptOf(client!) - (this.#kept.get(name) ?? 0);
    return Math.min(this.#parts.maxOutput, Math.max(0, quota - others));
  }
}

/** The description and the stream of a file's name; `null` for another file. */
function parse(name: string): { id: number; stream: Stream } | null {
  const [, id, stream] = /^(\d+)\.(stdout|stderr)$/.exec(name) ?? [];
  return stream === undefined ? null : { id: Number(id), stream: stream as Stream };
}

/** What a file holds; nothing where there is none. */
function extentOf(path: string): { size: number; first: number } {
  try {
    using file = new Descriptor(openSync(path, constants.O_RDONLY));
    const { size } = fstatSync(file.fd);
    return { size, first: Math.min(firstData(file.fd) ?? size, size) };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return { size: 0, first: 0 };
    throw error;
  }
}
