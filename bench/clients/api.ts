import { Agent, request as send } from 'node:http';

/** An answer that the contract does not allow here. */
export class Unexpected extends Error {}

export interface Call {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Calls the API as an ordinary client does, on shared keep-alive connections. */
export class Api implements Disposable {
  readonly socket: string;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(socket: string) {
    this.socket = socket;
  }

  /**
   * @param line the method and the path
   * @returns the body, parsed if it is JSON
   * @throws {Unexpected} if the answer has another status
   */
  async call<Body>(line: string, status: number, { body, headers, signal }: Call = {}): Promise<Body> {
    const [method, path] = line.split(' ') as [string, string];
    const text = body === undefined ? undefined : JSON.stringify(body);
    const answer = await this.#exchange(method, path, text, headers, signal);
    if (answer.status !== status)
      throw new Unexpected(`${line} ${text ?? ''}: ${status} expected, ${answer.status} ${answer.text.slice(0, 300)}`);
    return (answer.json ? JSON.parse(answer.text) : answer.text) as Body;
  }

  #exchange(
    method: string,
    path: string,
    text: string | undefined,
    headers: Record<string, string> = {},
    signal: AbortSignal | undefined,
  ): Promise<{ status: number; text: string; json: boolean }> {
    const type = text === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise((resolve, reject) => {
      const outgoing = send(
        {
          socketPath: this.socket,
          agent: this.#agent,
          method,
          path,
          headers: { ...type, ...headers },
          ...(signal && { signal }),
        },
        (incoming) => {
          let received = '';
          incoming.setEncoding('utf8').on('data', (chunk: string) => {
            received += chunk;
          });
          incoming.once('error', reject);
          incoming.once('end', () => {
            const json = incoming.headers['content-type']?.includes('json') ?? false;
            resolve({ status: incoming.statusCode!, text: received, json });
          });
        },
      );
      outgoing.once('error', reject);
      outgoing.end(text);
    });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}
