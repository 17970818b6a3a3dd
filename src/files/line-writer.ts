import { writeAtOnce } from '../kernel/write-at-once.ts';

/** Bytes that may wait for a reader. */
const MOST_WAITING = 2 ** 20;

/** How often a full pipe is tried again: no event tells when a blocking descriptor has room. */
const RETRY_MS = 100;

const NEWLINE = Buffer.from('\n');

/** As pino numbers it. */
const WARN = 40;

/** Writers that were made, by their descriptor. */
const writers = new Map<number, LineWriter>();

/** The one writer to a descriptor, so that lines of several loggers never mix. */
export function writerTo(fd: number): LineWriter {
  let writer = writers.get(fd);
  if (writer === undefined) {
    writer = new LineWriter(fd);
    writers.set(fd, writer);
  }
  return writer;
}

/** How many lines were dropped so far, by all writers. */
export function droppedLines(): number {
  return [...writers.values()].reduce((sum, { dropped }) => sum + dropped, 0);
}

/**
 * Writes lines to a descriptor that may be a pipe without a reader or a full disk, and never waits for either: what is held
 * matters more than what is said of it. Lines wait up to a bound; those beyond it are dropped and counted, and once lines can be
 * written again, a line says how many are missing.
 */
class LineWriter {
  readonly #fd: number;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  /** Whether what was written ends within a line, and whether the rest of that line is the first that waits. */
  #cut = false;
  #restWaits = false;
  /** Whether the last attempt failed. */
  #failing = false;
  /** Dropped lines that no line has told of. */
  #untold = 0;
  dropped = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** @param line with its newline */
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

  /** Writes what fits now. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    while (this.#waiting.length > 0)
      if (!this.#writeFirst()) {
        this.#timer = setTimeout(() => this.flush(), RETRY_MS).unref();
        return;
      }
    // Told by a line that would be dropped as well, it would never end.
    if (this.#untold === 0 || this.#failing) return;
    const dropped = this.#untold;
    this.#untold = 0;
    const msg = 'lines were dropped: nobody read them, or the disk was full';
    this.write(`${JSON.stringify({ level: WARN, time: Date.now(), dropped, msg })}\n`);
  }

  /** @returns false where it has to wait for the reader */
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
    this.#untold += 1;
  }
}
