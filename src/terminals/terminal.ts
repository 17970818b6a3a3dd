import type { Input } from '../input/input.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { hasRoom, PIPE_BUF, writeNow } from '../kernel/pipe.ts';
import { readTerminal } from '../kernel/terminal.ts';
import type { CapturedStream, Feeder } from '../output/captured-stream.ts';

/** What one read takes. All terminals share it, because every read is followed by its write. */
const bytes = Buffer.alloc(PIPE_BUF);

/**
 * Passes on what a terminal shows to the pipe of a captured stream. So its file, its limits and its end are those of every captured stream.
 * It takes from the terminal only what the pipe certainly takes, and holds no bytes itself. If the pipe is full, the program waits.
 *
 * It closes both once no process has the terminal open.
 */
export class Terminal implements Feeder {
  readonly #input: Input;
  readonly #stream: CapturedStream;
  readonly #writer: Descriptor;

  /**
   * @param input the terminal's
   * @param stream has no other writer
   * @param writer the write end of its pipe, nonblocking. The terminal owns it.
   */
  constructor(input: Input, stream: CapturedStream, writer: Descriptor) {
    this.#input = input;
    this.#stream = stream;
    this.#writer = writer;
    stream.feeder = this;
    input.onReady(() => this.feed());
    input.onClosed(() => writer.close());
  }

  /** Passes on what has come, as far as the pipe takes it now. It is called whenever either may be ready. */
  feed(): void {
    // While bytes are moved from the pipe, a write to it would wait for the disk. A full pipe has room again after the next move.
    while (this.#input.isOpen && !this.#stream.isMoving && hasRoom(this.#writer)) {
      const count = readTerminal(this.#input.descriptor, bytes);
      if (count === null) return;
      if (count === 0) this.#input.close();
      else writeNow(this.#writer, bytes.subarray(0, count));
    }
  }
}
