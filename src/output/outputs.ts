import { closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from '../clients/client.ts';
import type { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import { Descriptor, keepBelow } from '../kernel/descriptor.ts';
import type { Epoll, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { makePipe } from '../kernel/pipe.ts';
import { Listeners } from '../model/listeners.ts';
import type { OpenDescription, Stream } from '../model/process.ts';
import { CapturedStream } from './captured-stream.ts';
import { inTime } from './in-time.ts';
import type { Keeper } from './keeper.ts';
import { KeptBytes, type KeptBytesParts } from './kept-bytes.ts';
import type { MoveQueue } from './move-queue.ts';
import { extentOf, fileOf, parseFile } from './output-files.ts';
import { WriteEnds } from './write-ends.ts';

export interface OutputsParts extends KeptBytesParts {
  /** An existing directory that only the daemon may read. */
  directory: string;
  /** Pipes get lower numbers than this. */
  descriptors: number;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'rearm' | 'remove'>;
  keeper: Keeper;
  moves: MoveQueue;
}

/** The captured streams of a process that may still be written to. */
interface Capture {
  streams: Map<Stream, CapturedStream>;
  /** `null` while its process is being spawned, and once its last handle has ended. */
  description: OpenDescription | null;
}

/**
 * The captured output of spawned processes: a pipe for each stream, which the daemon moves to a file. A full pipe blocks the program,
 * not the daemon. The keeper holds the pipes while no daemon runs.
 */
export class Outputs {
  readonly #parts: OutputsParts;
  readonly #nothing = new Descriptor(openSync('/dev/null', constants.O_WRONLY));
  /** The largest size, in bytes, that a program without privileges can give its pipe. */
  readonly #largestPipe = Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8'));
  readonly #kept: KeptBytes;
  /** By the journal's number of the description. */
  readonly #captures = new Map<number, Capture>();
  readonly #followers = new Map<string, Listeners>();
  #closed = false;
  readonly #ended = new Listeners<[description: OpenDescription]>();
  /** How many bytes were dropped because of the limit. */
  dropped = 0;

  constructor(parts: OutputsParts) {
    this.#parts = parts;
    this.#kept = new KeptBytes(parts);
  }

  /** Subscribes to descriptions whose captured streams have all ended. @returns a function that ends the subscription */
  onEnded(listener: (description: OpenDescription) => void): () => void {
    return this.#ended.on(listener);
  }

  pathOf(id: number, stream: Stream): string {
    return join(this.#parts.directory, fileOf(id, stream));
  }

  /**
   * Makes the pipes for a process that is about to start. Call {@link discard} if it does not.
   * @throws {Problem} ENOSPC; {SystemError} EMFILE, ENFILE, EAGAIN, ENOMEM
   */
  async open(id: number, client: string, streams: readonly Stream[]): Promise<WriteEnds> {
    this.discard(id, streams);
    if (streams.length === 0) return new WriteEnds(new Map());
    this.#kept.own(id, client);
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
        await this.#parts.keeper.hold(fileOf(id, stream), reader);
      }
      return new WriteEnds(ends);
    } catch (error) {
      new WriteEnds(ends)[Symbol.dispose]();
      this.discard(id, streams);
      if (!isErrno(error, 'ENOSPC', 'EDQUOT', 'EROFS', 'EIO')) throw error;
      const detail = 'The disk takes no file for captured output: free space on it, or spawn without "capture".';
      throw new Problem('ENOSPC', detail, { syscall: 'posix_spawn', retry: { afterMs: 1000 } });
    }
  }

  #stream(id: number, stream: Stream, reader: Descriptor, extent: { size: number; first: number }): CapturedStream {
    const name = fileOf(id, stream);
    return new CapturedStream(this.#kept.ownerOf(id) ?? name, {
      ...extent,
      reader,
      path: this.pathOf(id, stream),
      epoll: this.#parts.epoll,
      moves: this.#parts.moves,
      nothing: this.#nothing,
      room: () => this.#kept.roomFor(id, stream),
      onChange: (dropped) => {
        this.dropped += dropped;
        this.#recordExtent(id, stream);
        this.#notify(name);
      },
      onEnd: () => {
        this.#parts.keeper.release(name);
        this.#recordExtent(id, stream);
        this.#endIfOver(id);
        this.#notify(name);
      },
    });
  }

  /** Moves the output of a process until its last writer has closed it, from the spawn on or from a start of the daemon. */
  track(description: OpenDescription, client: string): void {
    const { id } = description;
    this.#kept.own(id, client);
    const capture = this.#captures.get(id);
    if (capture === undefined) this.#ended.emit(description);
    else {
      capture.description = description;
      for (const [name, stream] of capture.streams) {
        this.#recordExtent(id, name);
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

  /** As {@link KeptBytes.reserve}. */
  reserve(client: Client, streams: number): Reservation {
    return this.#kept.reserve(client, streams);
  }

  #recordExtent(id: number, stream: Stream): void {
    this.#kept.recordExtent(id, stream, this.streamOf(id, stream)!);
  }

  /** Returns a stream that may still be written to; `undefined` once it has ended. */
  streamOf(id: number, stream: Stream): CapturedStream | undefined {
    return this.#captures.get(id)?.streams.get(stream);
  }

  /** Returns whether a stream may still be written to. */
  isOpen(id: number, stream: Stream): boolean {
    return !this.#closed && (this.streamOf(id, stream)?.open ?? false);
  }

  /** Returns whether all streams of a description have ended, and all of each is on disk. */
  hasEnded({ id, output }: OpenDescription): boolean {
    return output.streams.every((stream) => this.streamOf(id, stream)?.open !== true);
  }

  /** Resolves when everything that was written to a stream before this call is on disk, or the disk does not take it for now. */
  async flush(id: number, stream: Stream): Promise<void> {
    await this.streamOf(id, stream)?.flush(this.#largestPipe);
  }

  /** Flushes all streams, within a time in milliseconds: for a daemon that stops. */
  async flushAll(graceMs: number): Promise<void> {
    const streams = [...this.#captures.values()].flatMap((capture) => [...capture.streams.values()]);
    await inTime(Promise.all(streams.map((stream) => stream.flush(this.#largestPipe))), graceMs);
  }

  /** The error for which a stream cannot be moved to its file now; `null` if all can. */
  get fault(): Error | null {
    for (const { streams } of this.#captures.values())
      for (const { fault } of streams.values()) if (fault !== null) return fault;
    return null;
  }

  /** Removes the files of a description without a handle. What its processes still write is dropped. */
  release({ id, output }: OpenDescription): void {
    this.#remove(id, output.streams);
  }

  /** Closes and removes what {@link open} has made. */
  discard(id: number, streams: readonly Stream[]): void {
    for (const [stream, captured] of this.#captures.get(id)?.streams ?? []) {
      captured.close();
      this.#parts.keeper.release(fileOf(id, stream));
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
      this.#kept.record(id, stream, 0);
      this.#notify(fileOf(id, stream));
    }
    this.#kept.disown(id);
  }

  /** Takes over the pipes that an earlier daemon left with the keeper. */
  resume(): void {
    for (const [name, reader] of this.#parts.keeper.resume()) {
      const { id, stream } = parseFile(name)!;
      const capture = this.#captures.get(id) ?? { streams: new Map(), description: null };
      this.#captures.set(id, capture);
      capture.streams.set(stream, this.#stream(id, stream, reader, extentOf(this.pathOf(id, stream))));
    }
  }

  /**
   * Releases what an earlier daemon left for handles that have ended.
   * @param known the client of each description that still has a handle
   */
  sweep(known: ReadonlyMap<number, string>): void {
    for (const [id, client] of known) this.#kept.own(id, client);
    for (const name of readdirSync(this.#parts.directory)) {
      const { id, stream } = parseFile(name) ?? {};
      if (id === undefined || stream === undefined || !known.has(id))
        rmSync(join(this.#parts.directory, name), { force: true });
      else this.#kept.record(id, stream, 512 * statSync(this.pathOf(id, stream)).blocks);
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
   * Subscribes to a stream: calls back whenever bytes of it were moved to its file, and at its end.
   * @returns a function that ends the subscription
   */
  follow(id: number, stream: Stream, callback: () => void): () => void {
    const name = fileOf(id, stream);
    const followers = this.#followers.get(name) ?? new Listeners();
    this.#followers.set(name, followers);
    const end = followers.on(callback);
    return () => {
      end();
      if (followers.size === 0) this.#followers.delete(name);
    };
  }

  /** Ends the reading of everyone who follows a stream. */
  close(): void {
    this.#closed = true;
    for (const name of this.#followers.keys()) this.#notify(name);
  }

  /** Stops moving. The next daemon goes on. */
  stop(): void {
    for (const { streams } of this.#captures.values()) for (const stream of streams.values()) stream.stop();
  }

  #notify(name: string): void {
    this.#followers.get(name)?.emit();
  }
}
