import { connect, type Socket } from 'node:net';

export interface Answer {
  status: number;
  body: string;
}

/** One keep-alive connection that speaks just enough HTTP/1.1 to load a server without being the bottleneck. */
export class Connection {
  readonly #socket: Socket;
  #received = '';
  #waiting: ((answer: Answer) => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (data: string) => {
      this.#received += data;
      this.#deliver();
    });
  }

  static open(path: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new Connection(socket)));
      socket.once('error', reject);
    });
  }

  post(path: string, body = ''): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiting = resolve;
      const type = body === '' ? '' : 'content-type: application/json\r\n';
      this.#socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\n${type}content-length: ${body.length}\r\n\r\n${body}`);
    });
  }

  #deliver(): void {
    const end = this.#received.indexOf('\r\n\r\n');
    if (end === -1) return;
    const head = this.#received.slice(0, end);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (this.#received.length < end + 4 + length) return;
    const body = this.#received.slice(end + 4, end + 4 + length);
    this.#received = this.#received.slice(end + 4 + length);
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.({ status: Number(head.slice(9, 12)), body });
  }

  close(): void {
    this.#socket.destroy();
  }
}
