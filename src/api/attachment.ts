import { setTimeout as sleep } from 'node:timers/promises';
import type { AttachClientFrame, AttachedFrame, AttachServerFrame } from '../../schemas/attach.ts';
import type { Filled } from '../../schemas/filled.ts';
import { Problem } from '../errors/problem.ts';
import type { Feed, Why } from '../feed/feed.ts';
import type { Follower, Sink } from '../feed/sink.ts';
import type { Handles } from '../handles/handles.ts';
import { sourceOf } from '../input/byte-source.ts';
import type { Inputs } from '../input/inputs.ts';
import { writeInput } from '../input/write-input.ts';
import type { Event } from '../model/event.ts';
import type { Handle, Stream } from '../model/process.ts';
import type { Outputs } from '../output/outputs.ts';
import type { StreamReceiver, StreamSender } from '../output/stream-sender.ts';
import type { Signals } from '../signals/signals.ts';
import { notRead, requireInput, resize } from './input.ts';
import type { Call } from './operation.ts';

/** How long the frames of a client that has left may take, in milliseconds. */
const LONGEST_LEAVE_MS = 10_000;

/** How many bytes may wait for a slow reader. The rest stays in the file. */
const MOST_BUFFERED = 2 ** 18;

/** How long a frame waits for the client's rate before it looks again: a new policy may permit it sooner. */
const LONGEST_PAUSE_MS = 1000;

/** In a binary frame: the stream, then from the daemon the offset of the first byte. */
const STDIN = 0;
const STREAM_BYTES: Readonly<Record<Stream, number>> = { stdout: 1, stderr: 2 };
const OFFSET_AT = 1;
const BYTES_AT = 9;

export interface AttachmentParts {
  handles: Handles;
  outputs: Outputs;
  inputs: Inputs;
  signals: Signals;
  feed: Feed;
}

/** What an attachment is on, and with which rights. */
export interface Attaching {
  call: Call;
  handle: Handle;
  mayWrite: boolean;
  senders: readonly StreamSender[];
  /** Owns the senders. */
  held: DisposableStack;
}

/** The connection of an attachment. */
export interface AttachmentSink extends Required<Pick<Sink, 'reading' | 'send' | 'buffered' | 'flushed'>> {
  sendBytes(bytes: Buffer): void;
  close(why: Closing): void;
  /** Reports a fault of the daemon. */
  fault(error: unknown): void;
}

/**
 * Why the daemon closes a connection. `ended`: everything was sent. `stale`: the handle was closed. `revoked`: the credentials were.
 * `broken`: a fault of the daemon.
 */
export type Closing = Why | 'ended' | 'stale' | 'revoked' | 'broken';

/** A frame of the client: bytes with the stream before them, a text frame, or what is wrong with one. */
export type FrameOfClient = Buffer | AttachClientFrame | string;

/**
 * One socket's output and input of a process. Output is sent as fast as the client reads it. Frames of the client are done in order, one
 * at a time, and nothing more is read from it meanwhile.
 */
export class Attachment implements Follower, StreamReceiver, Disposable {
  /** It follows a handle by its id alone. */
  readonly scope = null;
  readonly #parts: AttachmentParts;
  readonly #attaching: Attaching;
  readonly #held: DisposableStack;
  readonly #end = new AbortController();
  /** Aborted when what the client has sent is dropped. */
  readonly #drop = new AbortController();
  #sink: AttachmentSink | null = null;
  #hasToldExit = false;
  #sending: number;
  readonly #frames: FrameOfClient[] = [];
  #isBusy = false;
  #late: NodeJS.Timeout | null = null;
  /** How many bytes the process was sent, and the signals, for the audit. */
  #accepted = 0;
  readonly #signals = new Set<string | number>();

  constructor(parts: AttachmentParts, attaching: Attaching) {
    this.#parts = parts;
    this.#attaching = attaching;
    this.#held = attaching.held;
    this.#sending = attaching.senders.length;
  }

  /** Begins to send. */
  begin(sink: AttachmentSink): void {
    const { feed, handles } = this.#parts;
    const { call, handle, senders } = this.#attaching;
    this.#sink = sink;
    if (this.#isEnded) return;
    this.#held.defer(() => feed.leave(handle.id, this));
    feed.follow(handle.id, this);
    const leave = feed.onClose((why) => this.close(why));
    if (this.#isEnded) {
      leave();
      return;
    }
    this.#held.defer(leave);
    try {
      // It may have been closed since it was opened.
      handles.get(call.client, handle.id);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#send(this.#attached());
    for (const sender of senders)
      void sender.run(this).then(
        () => this.#sent(),
        (error) => this.#fail(error),
      );
    this.#look();
  }

  #attached(): Filled<AttachedFrame> {
    const { handles, inputs } = this.#parts;
    const { handle, senders } = this.#attaching;
    const { description } = handle;
    const startOf = (stream: Stream): { offset: number } | null => {
      const sender = senders.find((each) => each.stream === stream);
      return sender === undefined ? null : { offset: sender.offset };
    };
    const state = inputs.of(description) === undefined ? 'closed' : 'open';
    return {
      type: 'attached',
      handle: handles.view(handle),
      stdin: description.input === null ? 'none' : state,
      stdout: startOf('stdout'),
      stderr: startOf('stderr'),
    };
  }

  /** Takes an event of the handle. */
  offer({ type }: Event): void {
    if (type !== 'closed' && type !== 'expired') this.#look();
    else this.#fail(new Problem('ESTALE', 'This handle was closed or has expired: open or spawn a new one.'));
  }

  /** Tells of the exit once its outcome is known, and of the end once nothing more can come. */
  #look(): void {
    const { ending } = this.#attaching.handle.process;
    if (this.#isEnded || ending === null || !(ending.reaped || ending.outcome !== null)) return;
    if (!this.#hasToldExit) this.#send({ type: 'exited', outcome: ending.outcome, rusage: ending.rusage });
    this.#hasToldExit = true;
    if (this.#sending === 0) void this.#finish();
  }

  #sent(): void {
    this.#sending -= 1;
    this.#look();
  }

  /** Says that everything was sent, once the client has read enough: the connection is closed soon after that. */
  async #finish(): Promise<void> {
    this.#sending = -1;
    await this.#flushed();
    this.#send({ type: 'end' });
    this.close('ended');
  }

  bytes(stream: Stream, offset: number, bytes: Buffer): void {
    const frame = Buffer.allocUnsafe(BYTES_AT + bytes.length);
    frame[0] = STREAM_BYTES[stream];
    frame.writeBigUInt64BE(BigInt(offset), OFFSET_AT);
    bytes.copy(frame, BYTES_AT);
    this.#sink?.sendBytes(frame);
  }

  gap(stream: Stream, from: number, to: number): void {
    this.#send({ type: 'gap', stream, from, to });
  }

  async room(): Promise<void> {
    if ((this.#sink?.buffered ?? 0) > MOST_BUFFERED) await this.#flushed();
  }

  /** Resolves when the client has read what waits for it in this process, or the connection ends. */
  #flushed(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { signal } = this.#end;
    const done = (): void => {
      signal.removeEventListener('abort', done);
      resolve();
    };
    signal.addEventListener('abort', done);
    if (this.#isEnded) done();
    else this.#sink!.flushed(done);
    return promise;
  }

  #send(frame: Filled<AttachServerFrame>): void {
    if (!this.#isEnded) this.#sink?.send(JSON.stringify(frame));
  }

  /** Takes a frame of the client. */
  receive(frame: FrameOfClient): void {
    if (this.#isEnded) return;
    this.#frames.push(frame);
    if (!this.#isBusy) void this.#work();
  }

  /** Does the frames that have come, and reads no others meanwhile. */
  async #work(): Promise<void> {
    this.#isBusy = true;
    this.#sink!.reading(false);
    try {
      for (let frame = this.#frames.shift(); frame !== undefined && !this.#isDropped; frame = this.#frames.shift())
        await this.#take(frame);
    } catch (error) {
      this.#fail(error);
    }
    this.#isBusy = false;
    if (this.#isEnded) this[Symbol.dispose]();
    else this.#sink!.reading(true);
  }

  async #take(frame: FrameOfClient): Promise<void> {
    await this.#pace();
    if (this.#isDropped) return;
    try {
      await this.#do(frame);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#refuse(problem);
      await this.room();
    }
  }

  /** Waits for the client's rate of requests: a refused frame would be missing in the input. */
  async #pace(): Promise<void> {
    const { client } = this.#attaching.call;
    const { signal } = this.#drop;
    for (let wait = 1; wait > 0 && !signal.aborted; ) {
      wait = client.requests.tryTake(client.quotas.requestsPerSecond);
      if (wait > 0) await sleep(Math.min(wait, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => {});
    }
  }

  async #do(frame: FrameOfClient): Promise<void> {
    if (typeof frame === 'string') throw new Problem('EINVAL', frame);
    if (!Buffer.isBuffer(frame)) {
      if (frame.type === 'eof') await this.#write(Buffer.alloc(0), true);
      else if (frame.type === 'signal') this.#signal(frame.signal);
      else await resize(this.#parts.inputs, this.#forInput(), frame);
    } else if (frame[0] === STDIN) await this.#write(frame.subarray(1), false);
    else throw new Problem('EINVAL', 'The first byte of a binary frame is its stream. Send 0, and then the input.');
  }

  async #write(bytes: Buffer, eof: boolean): Promise<void> {
    const { signal } = this.#drop;
    const handle = this.#forInput();
    const { accepted, why } = await writeInput<'left'>(requireInput(this.#parts.inputs, handle), sourceOf(bytes), {
      waits: true,
      eof,
      attend: (end) => {
        const leave = (): void => end('left');
        signal.addEventListener('abort', leave);
        return { [Symbol.dispose]: () => signal.removeEventListener('abort', leave) };
      },
    });
    this.#accepted += accepted;
    this.#attaching.call.note({ accepted: this.#accepted });
    if (why === 'broken') throw notRead(handle.id);
  }

  /** Returns the handle for a change of the input. The policy may have changed since the client attached. */
  #forInput(): Handle {
    const { call, handle, mayWrite } = this.#attaching;
    if (!mayWrite) throw new Problem('EPERM', 'This socket only observes. Attach without input=false to write.');
    return this.#parts.handles.get(call.client, handle.id, 'input');
  }

  #signal(signal: string | number): void {
    const { handles, signals } = this.#parts;
    const { call, handle } = this.#attaching;
    signals.send(handles.get(call.client, handle.id, 'signal'), signal, 'process');
    this.#signals.add(signal);
    call.note({ signal: [...this.#signals].join() });
  }

  get #isEnded(): boolean {
    return this.#end.signal.aborted;
  }

  get #isDropped(): boolean {
    return this.#drop.signal.aborted;
  }

  /** Ends with an error frame. */
  #fail(error: unknown): void {
    const isStale = error instanceof Problem;
    if (!isStale) this.#sink?.fault(error);
    this.#refuse(isStale ? error : internalError());
    this.close(isStale ? 'stale' : 'broken');
  }

  #refuse({ errno, message }: Problem): void {
    this.#send({ type: 'error', errno, detail: message });
  }

  /** Ends everything, and closes the connection. */
  close(why: Closing): void {
    if (this.#isEnded) return;
    const sink = this.#sink;
    this[Symbol.dispose]();
    sink?.close(why);
  }

  /** The client has closed the connection. What it sent before that is still done, within a time. */
  leave(): void {
    this.#end.abort();
    this.#held.dispose();
    if (!this.#isBusy) this[Symbol.dispose]();
    else this.#late ??= setTimeout(() => this[Symbol.dispose](), LONGEST_LEAVE_MS).unref();
  }

  /** Ends everything. What was received and not written is dropped. */
  [Symbol.dispose](): void {
    if (this.#late !== null) clearTimeout(this.#late);
    this.#end.abort();
    this.#drop.abort();
    this.#frames.length = 0;
    this.#held.dispose();
  }
}

function internalError(): Problem {
  return new Problem('EIO', 'The daemon has an internal error. See its log.');
}
