import type { WebSocket } from 'ws';
import type { Api } from './api.ts';
import { followEvents } from './events.ts';

/** How a subscriber that did not read was cut off, and how it resumed. */
export interface Cut {
  code: number;
  reason: string;
  /**
   * Whether the close reason contains the cursor to resume at. A subscriber that cannot even receive this is dropped
   * without one.
   */
  told: boolean;
  /** Events that it received neither before the cut nor after resuming. */
  lost: number;
}

const TRY_AGAIN_LATER = 1013;

/** A subscriber that reads nothing until it is resumed. */
export class Stopped {
  readonly #socket: string;
  readonly #webSocket: WebSocket;
  readonly #closed: Promise<{ code: number; reason: string }>;
  readonly #frames: Frames;

  private constructor(socket: string, webSocket: WebSocket, frames: Frames) {
    this.#socket = socket;
    this.#webSocket = webSocket;
    this.#frames = frames;
    this.#closed = new Promise((resolve) => {
      webSocket.once('close', (code, reason) => resolve({ code, reason: String(reason) }));
    });
  }

  static async open(socket: string): Promise<Stopped> {
    const frames = new Frames();
    const webSocket = await followEvents(socket, '', (frame) => frames.take(frame));
    webSocket.pause();
    return new Stopped(socket, webSocket, frames);
  }

  /** Reads the remaining frames and the close, and resumes at its cursor, or else at the last event. */
  async readOn(): Promise<Cut> {
    this.#webSocket.resume();
    const { code, reason } = await this.#closed;
    const { last, missing } = this.#frames;
    const said = /^resume since=(\d+)$/.exec(reason)?.[1];
    const since = said === undefined ? last : Number(said);
    const next = await firstSeqAfter(this.#socket, since);
    const told = code === TRY_AGAIN_LATER && said !== undefined;
    return { code, reason, told, lost: missing + Math.max(0, since - last) + (next - since - 1) };
  }

  [Symbol.dispose](): void {
    this.#webSocket.terminate();
  }
}

/** Received frames. All events belong to this one client, so their seqs are consecutive. They are parsed later. */
class Frames {
  #first = '';
  #last = '';
  #count = 0;

  take(frame: string): void {
    if (this.#count === 0) this.#first = frame;
    this.#last = frame;
    this.#count += 1;
  }

  /** The newest seq. */
  get last(): number {
    return seqOf(this.#last);
  }

  get missing(): number {
    return this.last - seqOf(this.#first) + 1 - this.#count;
  }
}

/** The seq of an event's frame; for a gap, the seq that it skips to. */
function seqOf(frame: string): number {
  const { seq, to } = JSON.parse(frame) as { seq?: number; to?: number };
  return seq ?? to!;
}

async function firstSeqAfter(socket: string, since: number): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const webSocket = await followEvents(socket, `?since=${since}`, resolve);
  const seq = seqOf(await promise);
  webSocket.terminate();
  return seq;
}

/** Returns how many subscribers the daemon has cut off since it started. */
export async function cutsOf(api: Api): Promise<number> {
  const text = await api.call<string>('GET /metrics', 200);
  return Number(/^waitd_subscribers_cut_total (\d+)/m.exec(text)?.[1]);
}
