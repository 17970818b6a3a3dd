import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { type ClientOptions, WebSocket } from 'ws';
import { eventually, type Response, Socket } from './harness.ts';
import type { Site } from './proxies.ts';

/** The host name in the configurations of docs/how-to/proxies.md. */
export const NAME = 'waitd.example';

export interface Asked {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export interface Way {
  site: Site;
  /** Without a token, requests have no credentials. */
  token?: string;
  /** The certificate authority, PEM. With it, connections use TLS. */
  ca?: string;
  prefix?: string;
}

/** A client of a daemon behind a proxy. Each request opens a connection. */
export class Through {
  readonly #way: Way;

  constructor(way: Way) {
    this.#way = way;
  }

  get port(): number {
    return this.#way.ca === undefined ? this.#way.site.http : this.#way.site.https;
  }

  get prefix(): string {
    return this.#way.prefix ?? '/jobs';
  }

  get authorization(): Record<string, string> {
    const { token } = this.#way;
    return token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** Sends a request. @returns the answer, once its headers have arrived */
  open(method: string, path: string, { body, headers = {}, signal }: Asked = {}): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const payload = typeof body === 'object' ? JSON.stringify(body) : (body as string | undefined);
    const options = {
      host: '127.0.0.1',
      port: this.port,
      agent: false as const,
      method,
      path: this.prefix + path,
      ...(signal !== undefined && { signal }),
      headers: {
        host: NAME,
        ...this.authorization,
        ...(payload !== undefined && {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(payload),
        }),
        ...headers,
      },
    };
    const { ca } = this.#way;
    const request = ca === undefined ? plainRequest(options) : tlsRequest({ ...options, servername: NAME, ca });
    request.on('response', (response) => resolve(new Answer(response)));
    request.on('error', reject);
    request.end(payload);
    return promise;
  }

  async ask(method: string, path: string, asked?: Asked): Promise<Response> {
    const answer = await this.open(method, path, asked);
    return answer.whole();
  }

  // biome-ignore lint/suspicious/noExplicitAny: tests know the type
  async spawn(argv: string[], more: object = {}, spawnMore: object = {}): Promise<any> {
    const { body } = await this.ask('POST', '/v1/handles', { body: { spawn: { argv, ...spawnMore }, ...more } });
    return body;
  }

  ws(headers: Record<string, string>, protocols: string[] = ['waitd.v1']): WebSocket {
    const { ca } = this.#way;
    const url = `${ca === undefined ? 'ws' : 'wss'}://127.0.0.1:${this.port}${this.prefix}/v1/events`;
    const options: ClientOptions = { headers: { host: NAME, ...headers } };
    return new WebSocket(url, protocols, { ...options, ...(ca !== undefined && { servername: NAME, ca }) });
  }

  socket(headers?: Record<string, string>, protocols?: string[]): Socket {
    return new Socket(this.ws(headers ?? this.authorization, protocols));
  }

  /** The subprotocols that carry the token, because a browser cannot set headers. */
  get protocols(): string[] {
    const token = Buffer.from(this.#way.token ?? '').toString('base64url');
    return ['waitd.v1', `base64url.bearer.authorization.waitd.${token}`];
  }
}

/** An answer, and the part of its body that has arrived. */
export class Answer {
  readonly #response: IncomingMessage;
  readonly #ended: Promise<unknown>;
  text = '';

  constructor(response: IncomingMessage) {
    this.#response = response;
    response.setEncoding('utf8').on('data', (data: string) => {
      this.text += data;
    });
    response.on('error', () => {}); // `close` follows every error
    this.#ended = new Promise((resolve) => response.once('close', resolve));
  }

  get status(): number {
    return this.#response.statusCode!;
  }

  get headers(): Response['headers'] {
    return this.#response.headers;
  }

  /** Waits until this text has arrived. @throws {Error} if the answer ends without it */
  async until(text: string): Promise<void> {
    await eventually(() => this.text.includes(text) || this.#response.destroyed, `${text} arrives`);
    if (!this.text.includes(text)) throw new Error(`ended after: ${this.text}`);
  }

  /** Closes the client's connection. */
  leave(): void {
    this.#response.destroy();
  }

  async whole(): Promise<Response> {
    await this.#ended;
    const { status, headers, text } = this;
    const isJson = headers['content-type']?.includes('json') === true && text !== '';
    return { status, headers, text, body: isJson ? JSON.parse(text) : null };
  }
}
