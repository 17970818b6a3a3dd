import { Agent, request as httpRequest } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import type { Heard } from './listener.ts';

export interface Answer {
  status: number;
  retryAfter: string | undefined;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  body: any;
}

/** The connection errors that a dead or dying daemon causes. */
const passing = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE']);

/** A client that repeats each request until it is answered, also while the daemon is restarting or upgrading. */
export class Caller {
  readonly #socketPath: string;
  readonly #agent = new Agent({ keepAlive: true });
  /** The number of repetitions by reason: an errno of the connection, or the 503. */
  readonly askedAgain: Record<string, number> = {};

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  get(path: string): Promise<Answer> {
    return this.request('GET', path);
  }

  post(path: string, body: unknown, key?: string): Promise<Answer> {
    return this.request('POST', path, body, key);
  }

  /** @throws {Error} if the connection fails in an unexpected way */
  async request(method: string, path: string, body?: unknown, key?: string): Promise<Answer> {
    for (;;) {
      let why: string;
      try {
        const answer = await this.#once(method, path, body, key);
        if (answer.status !== 503) return answer;
        why = `503 ${answer.body.errno}, Retry-After ${answer.retryAfter}`;
      } catch (error) {
        why = String((error as NodeJS.ErrnoException).code);
        if (!passing.has(why)) throw error;
      }
      this.askedAgain[why] = (this.askedAgain[why] ?? 0) + 1;
      await setTimeout(10);
    }
  }

  #once(method: string, path: string, body: unknown, key: string | undefined): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      ...(payload !== undefined && { 'content-type': 'application/json' }),
      ...(key !== undefined && { 'idempotency-key': key }),
    };
    const request = httpRequest(
      { socketPath: this.#socketPath, method, path, headers, agent: this.#agent },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (data: string) => {
          text += data;
        });
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            retryAfter: response.headers['retry-after'],
            text,
            body: response.headers['content-type']?.includes('json') ? JSON.parse(text) : null,
          }),
        );
      },
    );
    request.on('error', reject);
    request.end(payload);
    return promise;
  }

  /** Reads every stored event, page by page. */
  async *events(): AsyncGenerator<Heard> {
    for (let since = 0; ; ) {
      const { events } = (await this.get(`/v1/events?since=${since}&limit=1000`)).body;
      yield* events;
      if (events.length === 0) return;
      since = events.at(-1).seq;
    }
  }

  async lastSeq(): Promise<number> {
    let last = 0;
    for await (const { seq } of this.events()) last = seq;
    return last;
  }

  close(): void {
    this.#agent.destroy();
  }
}
