import { strict as assert } from 'node:assert';
import { type ClientOptions, WebSocket } from 'ws';
import type { Daemon } from './harness.ts';
import { contract } from './judge.ts';

export type Stream = 'stdout' | 'stderr';
const STREAMS: Record<number, Stream> = { 1: 'stdout', 2: 'stderr' };

/** The time limit of every wait. */
const PATIENCE_MS = 240_000;

export interface AttachOptions {
  /** With its `?`. */
  query?: string;
  protocols?: string[];
  /** The options of a connection to the daemon's TLS listener, instead of one to the Unix socket. */
  tls?: ClientOptions;
  /** Whether it keeps the bytes that it receives. */
  keeps?: boolean;
}

/** An attached WebSocket. It checks that the offsets of each stream have no hole that is not a gap. */
export class Attached {
  readonly ws: WebSocket;
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  readonly frames: any[] = [];
  readonly received: Record<Stream, Buffer[]> = { stdout: [], stderr: [] };
  /** The offset after the last byte of each stream; -1 before the first frame. */
  readonly at: Record<Stream, number> = { stdout: -1, stderr: -1 };
  readonly closed: Promise<{ code: number; reason: string }>;
  /** The status of a refused upgrade, with the errno of its problem. */
  readonly refused: Promise<{ status: number; errno: string }>;
  #look: () => void = () => {};

  constructor(daemon: Daemon, id: string, options: AttachOptions = {}) {
    const { query = '', protocols = ['waitd.attach.v1'], keeps = true, tls } = options;
    const base = tls === undefined ? `ws+unix:${daemon.socket}:` : `wss://localhost:${daemon.port}`;
    this.ws = new WebSocket(`${base}/v1/handles/${id}/attach${query}`, protocols, tls);
    this.ws.on('error', () => {});
    this.ws.on('message', (data, isBinary) => {
      if (isBinary) this.#takeBytes(data as Buffer, keeps);
      else this.#takeFrame(JSON.parse(String(data)));
      this.#look();
    });
    this.closed = new Promise((resolve) =>
      this.ws.on('close', (code, reason) => {
        resolve({ code, reason: String(reason) });
        this.#look();
      }),
    );
    this.refused = new Promise((resolve) =>
      this.ws.on('unexpected-response', async (_request, response) => {
        const parts: Buffer[] = [];
        for await (const part of response) parts.push(part);
        const { errno } = JSON.parse(Buffer.concat(parts).toString());
        resolve({ status: response.statusCode!, errno });
        this.ws.terminate();
      }),
    );
  }

  #takeBytes(frame: Buffer, keeps: boolean): void {
    const stream = STREAMS[frame[0]!]!;
    assert.ok(frame.length > 9, 'a frame of output has bytes');
    assert.equal(Number(frame.readBigUInt64BE(1)), this.at[stream], `${stream} continues where it was`);
    this.at[stream] += frame.length - 9;
    if (keeps) this.received[stream].push(frame.subarray(9));
  }

  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  #takeFrame(frame: any): void {
    assert.equal(contract.frame(frame, 'AttachServerFrame'), null, JSON.stringify(frame));
    if (frame.type === 'attached')
      for (const stream of Object.values(STREAMS)) this.at[stream] = frame[stream]?.offset ?? -1;
    if (frame.type === 'gap') {
      assert.equal(frame.from, this.at[frame.stream as Stream]);
      assert.ok(frame.to > frame.from);
      this.at[frame.stream as Stream] = frame.to;
    }
    this.frames.push(frame);
  }

  /** What it has received of a stream. */
  text(stream: Stream = 'stdout'): string {
    return Buffer.concat(this.received[stream]).toString();
  }

  /** Waits for the first text frame of a type. */
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async first(type: string): Promise<any> {
    await this.until(() => this.frames.some((frame) => frame.type === type), type);
    return this.frames.find((frame) => frame.type === type);
  }

  /** Waits for a condition while frames keep arriving. */
  until(done: () => boolean, label = String(done)): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (why: string): void => reject(new Error(`${why}: ${label}; ${JSON.stringify(this.frames)}`));
    const timer = setTimeout(() => giveUp('not so in time'), PATIENCE_MS).unref();
    this.#look = () => {
      if (!done() && this.ws.readyState !== WebSocket.CLOSED) return;
      clearTimeout(timer);
      if (done()) resolve();
      else giveUp('closed before');
    };
    this.#look();
    return promise;
  }

  /** Sends bytes for the standard input, once it is attached. @returns once they have left this process */
  async write(bytes: string | Buffer): Promise<void> {
    await this.first('attached');
    await new Promise<void>((resolve) =>
      this.ws.send(Buffer.concat([Buffer.from([0]), Buffer.from(bytes)]), () => resolve()),
    );
  }

  send(frame: unknown): void {
    this.ws.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  /** Waits for the end. */
  async end(): Promise<void> {
    await this.first('end');
    assert.deepEqual(await this.closed, { code: 1000, reason: 'end' });
  }

  detach(): void {
    this.ws.terminate();
  }
}
