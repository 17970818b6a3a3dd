import { writeAtOnce } from '../kernel/write-at-once.ts';

/** The limit of a writer's queue in bytes. */
const MOST_WAITING = 2 ** 20;

/** The interval of retries on a full pipe. The kernel sends no event when a blocking descriptor has room again. */
const RETRY_MS = 100;

const NEWLINE = Buffer.from('\n');

/** The number of pino's level `warn`. */
const WARN = 40;

/** All writers by descriptor. */
const writers = new Map<number, LineWriter>();

/** Returns the only writer of a descriptor, so that lines of several loggers never mix. */
export function writerTo(fd: number): LineWriter {
  let writer = writers.get(fd);
  if (writer === undefined) {
    writer = new LineWriter(fd);
    writers.set(fd, writer);
  }
  return writer;
}

/** Returns the number of lines that all writers have dropped so far. */
export function droppedLines(): number {
  return [...writers.values()].reduce((sum, { dropped }) => sum + dropped, 0);
}

/**
 * Writes lines to a descriptor without ever blocking the daemon, even if the descriptor is a pipe without a reader or the disk is full.
 * Lines wait in a bounded queue. Further lines are dropped and counted, and a later line reports how many are missing.
 */
class LineWriter {
  readonly #fd: number;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  /** Whether the output ends within a line, and whether the rest of that line is first in the queue. */
  #cut = false;
  #restWaits = false;
  /** Whether the last attempt failed. */
  #failing = false;
  /** Dropped lines that no line has reported yet. */
  #unreported = 0;
  dropped = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Queues a line, and writes it at once if the queue is empty. @param line with its newline */
  write(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#waitingBytes + bytes.length > MOST_WAITING) {
      this.#drop();
      return;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#timer === null) this.flush();
  }

  /** Writes as much of the queue as fits without waiting. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    while (this.#waiting.length > 0)
      if (!this.#writeFirst()) {
        this.#timer = setTimeout(() => this.flush(), RETRY_MS).unref();
        return;
      }
    // While writes fail, the report would be dropped too, and would cause another report without end.
    if (this.#unreported === 0 || this.#failing) return;
    const dropped = this.#unreported;
    this.#unreported = 0;
    const msg = 'lines were dropped: the reader was too slow, or the disk was full';
    this.write(`${JSON.stringify({ level: WARN, time: Date.now(), dropped, msg })}\n`);
  }

  /** @returns false if the descriptor has no room until its reader reads */
  #writeFirst(): boolean {
    const line = this.#waiting[0]!;
    const bytes = this.#cut && !this.#restWaits ? Buffer.concat([NEWLINE, line]) : line;
    let sent: number;
    try {
      sent = writeAtOnce(this.#fd, bytes);
      this.#failing = false;
    } catch {
      this.#failing = true;
      this.#drop();
      this.#replaceFirst(null);
      this.#restWaits = false;
      return true;
    }
    if (sent === 0) return false;
    this.#cut = sent < bytes.length;
    this.#restWaits = this.#cut;
    this.#replaceFirst(this.#cut ? bytes.subarray(sent) : null);
    return true;
  }

  #replaceFirst(rest: Buffer | null): void {
    this.#waitingBytes += (rest?.length ?? 0) - this.#waiting[0]!.length;
    if (rest === null) this.#waiting.shift();
    else this.#waiting[0] = rest;
  }

  #drop(): void {
    this.dropped += 1;
    this.#unreported += 1;
  }
}
