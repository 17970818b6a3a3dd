import type { Input } from '../input/input.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, Wakeup } from '../kernel/epoll.ts';
import { SystemError } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { hasRoom, PIPE_BUF, writeNow } from '../kernel/pipe.ts';
import { readTerminal, sessionOf } from '../kernel/terminal.ts';
import type { CapturedStream, Feeder } from '../output/captured-stream.ts';

/** What one read takes. All terminals share it, because every read is followed by its write. */
const bytes = Buffer.alloc(PIPE_BUF);

/**
 * Passes on what a terminal shows to the pipe of a captured stream. So its file, its limits and its end are those of every captured stream.
 * It takes from the terminal only what the pipe certainly takes, and holds no bytes itself. If the pipe is full, the program waits.
 *
 * It closes both once no process has the terminal open, and the leader of its session has ended. Until then the leader may open it again, and
 * would be hung up.
 */
export class Terminal implements Feeder {
  readonly #input: Input;
  readonly #stream: CapturedStream;
  readonly #writer: Descriptor;
  readonly #epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** While no process has the terminal open: ends the watch on the leader of its session. */
  #leader: Disposable | null = null;
  /** Whether that leader has ended. */
  #hasEnded = false;

  /**
   * @param input the terminal's
   * @param stream has no other writer
   * @param writer the write end of its pipe, nonblocking. The terminal owns it.
   */
  constructor(input: Input, stream: CapturedStream, writer: Descriptor, epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>) {
    this.#input = input;
    this.#stream = stream;
    this.#writer = writer;
    this.#epoll = epoll;
    stream.feeder = this;
    input.onReady(() => this.feed());
    input.onClosed(() => {
      writer.close();
      this.#leader?.[Symbol.dispose]();
    });
  }

  /** Passes on what has come, as far as the pipe takes it now. It is called whenever either may be ready. */
  feed(): void {
    // While bytes are moved from the pipe, a write to it would wait for the disk. A full pipe has room again after the next move.
    while (this.#input.isOpen && !this.#stream.isMoving && hasRoom(this.#writer)) {
      const count = readTerminal(this.#input.descriptor, bytes);
      if (count === null) return;
      if (count === 0) {
        this.#unused();
        return;
      }
      writeNow(this.#writer, bytes.subarray(0, count));
    }
  }

  /** Closes the terminal, or waits for the end of the leader of its session. */
  #unused(): void {
    if (this.#leader !== null) return;
    const leader = this.#hasEnded ? null : sessionOf(this.#input.descriptor);
    this.#leader = leader === null ? null : this.#watch(leader);
    if (this.#leader === null) this.#input.close();
  }

  /** @returns `null` if the process cannot be watched: it has ended, or no descriptor is free */
  #watch(leader: number): Disposable | null {
    try {
      using opened = new DisposableStack();
      const pidfd = opened.use(Pidfd.open(leader));
      const registration = this.#epoll.add(pidfd, new Wakeup(() => this.#leaderEnded()));
      opened.defer(() => this.#epoll.remove(registration));
      return opened.move();
    } catch (error) {
      if (error instanceof SystemError) return null;
      throw error;
    }
  }

  #leaderEnded(): void {
    this.#leader?.[Symbol.dispose]();
    this.#leader = null;
    this.#hasEnded = true;
    this.feed();
  }
}
