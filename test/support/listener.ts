import { setTimeout } from 'node:timers/promises';
import { WebSocket } from 'ws';

/** The members of an event's frame that tests use. */
export interface Heard {
  seq: number;
  event: string;
  handle: string;
  at: string;
  outcome?: { reason: string } | null;
}

export interface Gap {
  from: number;
  to: number;
}

/** Follows all events. Reconnects after a close, and resumes after the last event. */
export class Listener {
  readonly heard: Heard[] = [];
  readonly gaps: Gap[] = [];
  /** The number of connections. */
  greeted = 0;
  /** The close code and reason of each connection. */
  readonly codes: number[] = [];
  readonly #socketPath: string;
  #socket: WebSocket | null = null;
  #ended = false;
  #look: () => void = () => {};

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#connect();
  }

  get last(): number {
    return this.heard.at(-1)?.seq ?? 0;
  }

  #connect(): void {
    const socket = new WebSocket(`ws+unix:${this.#socketPath}:/v1/events?since=${this.last}`, ['waitd.v1']);
    this.#socket = socket;
    socket.on('message', (data) => {
      const { type, ...frame } = JSON.parse(String(data));
      if (type === 'event') {
        const { seq, event, handle, at, outcome } = frame;
        this.heard.push({ seq, event, handle, at, outcome });
      }
      if (type === 'hello') this.greeted += 1;
      if (type === 'gap') this.gaps.push(frame);
      this.#look();
    });
    socket.on('error', () => {}); // `close` follows every error
    socket.on('close', async (code) => {
      if (this.#ended) return;
      this.codes.push(code);
      await setTimeout(5); // the daemon may not listen yet
      if (!this.#ended) this.#connect();
    });
  }

  /** Resolves when the event with this seq, or a later one, has arrived. */
  async until(seq: number): Promise<void> {
    while (this.last < seq)
      await new Promise<void>((resolve) => {
        this.#look = resolve;
      });
  }

  end(): void {
    this.#ended = true;
    this.#socket?.terminate();
  }
}
