import { connect, type Socket } from 'node:net';

export interface Answer {
  status: number;
  /** The status line and the headers. */
  head: string;
  body: string;
}

/**
 * A keep-alive HTTP/1.1 connection with one request at a time. It parses as little of an answer as possible, so that
 * the server dominates the measurement: bytes are read into one reused buffer, without Node.js streams.
 */
export class Connection {
  readonly #socket: Socket;
  readonly #onAnswer: (answer: Answer) => void;
  #text = '';

  private constructor(path: string, onAnswer: (answer: Answer) => void, onError: (error: Error) => void) {
    this.#onAnswer = onAnswer;
    this.#socket = connect({
      path,
      onread: {
        buffer: Buffer.alloc(65536),
        callback: (length, buffer) => {
          this.#take((buffer as Buffer).toString('latin1', 0, length));
          return true;
        },
      },
    });
    this.#socket.on('error', onError);
    this.#socket.on('end', () => onError(new Error('the server closed the connection')));
  }

  static open(path: string, onAnswer: (answer: Answer) => void, onError: (error: Error) => void): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const connection = new Connection(path, onAnswer, (error) => {
        reject(error);
        onError(error);
      });
      connection.#socket.once('connect', () => resolve(connection));
    });
  }

  send(request: string): void {
    this.#socket.write(request, 'latin1');
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(chunk: string): void {
    const text = this.#text === '' ? chunk : this.#text + chunk;
    const headEnd = text.indexOf('\r\n\r\n');
    const length = headEnd === -1 ? null : /\r\ncontent-length: (\d+)/i.exec(text)?.[1];
    if (length === undefined) throw new Error(`an answer without Content-Length: ${text}`);
    if (length === null || text.length < headEnd + 4 + Number(length)) {
      this.#text = text;
      return;
    }
    this.#text = '';
    this.#onAnswer({
      status: Number(text.slice(9, 12)),
      head: text.slice(0, headEnd),
      body: text.slice(headEnd + 4),
    });
  }
}

export function post(path: string, body?: unknown): string {
  const text = body === undefined ? '' : JSON.stringify(body);
  const type = body === undefined ? '' : 'content-type: application/json\r\n';
  return `POST ${path} HTTP/1.1\r\nhost: localhost\r\n${type}content-length: ${text.length}\r\n\r\n${text}`;
}

export function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`;
}

/** Sends one request on its own connection. */
export async function ask(socket: string, request: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const connection = await Connection.open(socket, resolve, reject);
  try {
    connection.send(request);
    return await promise;
  } finally {
    connection.close();
  }
}
