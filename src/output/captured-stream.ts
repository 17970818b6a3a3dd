import { constants, openSync, rmSync } from 'node:fs';
import { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno, SystemError } from '../kernel/errno.ts';
import { punchHole } from '../kernel/file.ts';
import { look, move } from '../kernel/pipe.ts';
import type { MoveQueue } from './move-queue.ts';

/** How many bytes are moved at a time. The pipe is locked meanwhile, and its program waits. */
const CHUNK = 2 ** 18;

/** The pause between two moves of a stream that is written to all the time, in milliseconds, unless its pipe is full. */
const PAUSE_MS = 5;

/** A pipe that held fewer bytes than this has room for those of a pause. */
const NEARLY_FULL = 2 ** 15;

/** The time from a failed move to the next one, in milliseconds. It doubles with each failure. */
const SHORTEST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5000;

/** The size of a hole is a multiple of this. Disks free whole blocks, and none has larger ones. */
const BLOCK = 2 ** 16;

/** The newest bytes are kept, and an eighth more, but at most this many more: so holes are made seldom. */
const MOST_BEYOND = 2 ** 20;

/** Fills the pipe of a stream to which no program writes itself. */
export interface Feeder {
  /** Writes what is there to the pipe, as far as that has room, unless {@link CapturedStream.isMoving}. */
  feed(): void;
}

export interface CapturedStreamParts {
  /** The read end, nonblocking. The stream owns it. */
  reader: Descriptor;
  /** The path of the file that the bytes are moved to. */
  path: string;
  /** How many bytes were written already, and the offset of the first one that was not dropped. */
  size: number;
  first: number;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'rearm' | 'remove'>;
  /** Shared by all streams: disks are slow, and the threads few. */
  moves: MoveQueue;
  /** A descriptor of /dev/null, for discarded bytes. */
  nothing: Descriptor;
  /** Returns how many bytes of the file may be kept. */
  room(): number;
  /** Called after bytes were moved or dropped. */
  onChange(dropped: number): void;
  /** Called once, when the last writer has closed the stream and all of it is in the file. */
  onEnd(): void;
}

/**
 * The pipe that a program writes to, and the file that keeps what it wrote. Only the daemon writes to the file: the program cannot
 * truncate it, fill the disk with it, or read the output of others.
 *
 * The bytes are moved by splice(2), which takes from the pipe only what the file has taken. They are never in the memory of the daemon,
 * so none is lost when it dies. If the disk is full, the program waits.
 */
export class CapturedStream {
  /** The client whose turn in the queue of moves it takes. */
  client: string;
  /** What fills the pipe; `null` if programs write to it themselves. */
  feeder: Feeder | null = null;
  readonly #parts: CapturedStreamParts;
  readonly #reader: Descriptor;
  readonly #offset = new BigInt64Array(1);
  #registration: Registration | null = null;
  #first: number;
  /** The move that runs or waits for its turn. */
  #move: Promise<number | null> | null = null;
  #isMoving = false;
  #draining = false;
  #timer: NodeJS.Timeout | null = null;
  #retryMs = SHORTEST_RETRY_MS;
  #fault: Error | null = null;
  #state: 'kept' | 'discarded' | 'ended' | 'stopped' = 'kept';

  constructor(client: string, parts: CapturedStreamParts) {
    this.client = client;
    this.#parts = parts;
    this.#reader = parts.reader;
    this.#offset[0] = BigInt(parts.size);
    this.#first = parts.first;
  }

  /** Bytes written so far. */
  get size(): number {
    return Number(this.#offset[0]);
  }

  /** The offset of the first byte that was not dropped. */
  get first(): number {
    return this.#first;
  }

  /** Whether it may still be written to. */
  get open(): boolean {
    return this.#state !== 'ended';
  }

  /** Whether its file was removed before its end. */
  get isDiscarded(): boolean {
    return this.#state === 'discarded';
  }

  /** The error for which no bytes can be moved to the file now; `null` if they can. */
  get fault(): Error | null {
    return this.#fault;
  }

  /** Whether bytes are moved now. Meanwhile a write to the pipe would wait for the disk. */
  get isMoving(): boolean {
    return this.#isMoving;
  }

  /** Opens the write end of the pipe once more, nonblocking. @throws {Error} EMFILE, ENFILE */
  openWriter(): Descriptor {
    const { O_WRONLY, O_NONBLOCK } = constants;
    return new Descriptor(openSync(`/proc/self/fd/${this.#reader.fd}`, O_WRONLY | O_NONBLOCK));
  }

  /** Begins to move bytes as they come. */
  start(): void {
    this.#registration = this.#parts.epoll.add(this.#reader, new Wakeup(() => void this.#drain()), { once: true });
  }

  /**
   * Moves to the file the bytes that are in the pipe now.
   * @param most how many bytes a pipe can hold
   * @returns once that is done, or has failed for now
   */
  async flush(most: number): Promise<void> {
    try {
      await this.#move; // what it moves may have been written later, so it does not count
      this.feeder?.feed();
      for (let left = most; left > 0 && this.#movable && look(this.#reader).ready; ) {
        const moved = await this.#moveOnce();
        if (moved === null) return;
        left -= moved;
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Removes the file. Later bytes are read and dropped, so that the program goes on. */
  discard(): void {
    rmSync(this.#parts.path, { force: true });
    if (this.#state !== 'kept') return;
    this.#state = 'discarded';
    this.#fault = null;
    if (this.#timer !== null) this.#resume();
  }

  /** Stops moving, and leaves the pipe with its bytes to the next daemon. */
  stop(): void {
    if (this.#state !== 'ended') this.#state = 'stopped';
    this.#cancelTimer();
  }

  /** Closes a pipe that was made for a spawn that has failed. */
  close(): void {
    this.stop();
    this.#state = 'ended';
    this.#release();
  }

  get #movable(): boolean {
    return this.#state === 'kept' || this.#state === 'discarded';
  }

  async #drain(): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let few = false; this.#movable; ) {
        const { ready, hungUp } = look(this.#reader);
        if (!hungUp && !ready) return this.#resume();
        // Others came during the move, and more will.
        if (!hungUp && few) return this.#later(PAUSE_MS);
        const moved = await this.#moveOnce();
        few = moved !== null && moved < NEARLY_FULL;
      }
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#draining = false;
    }
  }

  #failed(error: unknown): void {
    // Any other error is a fault of the daemon.
    if (!(error instanceof SystemError) && !(error instanceof Error && 'syscall' in error)) throw error;
    if (!this.#movable) return;
    this.#fault = this.#state === 'kept' ? error : null;
    this.#later(this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, LONGEST_RETRY_MS);
  }

  #later(delay: number): void {
    this.#cancelTimer();
    this.#timer = setTimeout(() => this.#resume(), delay).unref();
  }

  #resume(): void {
    this.#cancelTimer();
    if (this.#registration !== null && this.#movable) this.#parts.epoll.rearm(this.#registration);
  }

  #cancelTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Moves once. A call during a move shares it. */
  #moveOnce(): Promise<number | null> {
    this.#move ??= this.#parts.moves
      .take(this.client, () => this.#moveNow())
      .finally(() => {
        this.#move = null;
      });
    return this.#move;
  }

  /** @returns as {@link move} */
  async #moveNow(): Promise<number | null> {
    if (!this.#movable) return null;
    this.#isMoving = true;
    try {
      const moved =
        this.#state === 'kept' ? await this.#moveToFile() : await move(this.#reader, this.#parts.nothing, null, CHUNK);
      this.#fault = null;
      this.#retryMs = SHORTEST_RETRY_MS;
      if (moved === 0) this.#end();
      return moved;
    } finally {
      this.#isMoving = false;
      this.feeder?.feed();
    }
  }

  async #moveToFile(): Promise<number | null> {
    // Open only meanwhile, so that a stream holds one descriptor.
    using file = new Descriptor(openSync(this.#parts.path, constants.O_WRONLY | constants.O_CREAT, 0o600));
    const moved = await move(this.#reader, file, this.#offset, CHUNK);
    // If it was discarded meanwhile, the file is freed with this descriptor.
    if (this.#state === 'kept' && moved !== null && moved > 0) this.#parts.onChange(await this.#limit(file));
    return moved;
  }

  /** Frees the disk blocks of bytes beyond the limit. @returns how many bytes were dropped */
  async #limit(file: Descriptor): Promise<number> {
    const room = this.#parts.room();
    const end = Math.floor((this.size - room) / BLOCK) * BLOCK;
    const from = this.#first;
    if (end - from < Math.max(BLOCK, Math.min(room / 8, MOST_BEYOND))) return 0;
    // Set before the hole is made, so that no reader takes its zeros for output.
    this.#first = end;
    try {
      await punchHole(file.fd, from, end - from);
      return end - from;
    } catch (error) {
      // The file then grows as large as its disk allows.
      if (!isErrno(error, 'EOPNOTSUPP', 'EIO', 'EROFS')) throw error;
      return 0;
    }
  }

  #end(): void {
    this.#state = 'ended';
    this.#release();
    this.#parts.onEnd();
  }

  #release(): void {
    if (this.#registration !== null) this.#parts.epoll.remove(this.#registration);
    this.#registration = null;
    this.#cancelTimer();
    this.#reader.close();
  }
}
