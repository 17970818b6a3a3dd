import { type Answer, Connection } from './connection.ts';

/** Sends one request after another on one keep-alive connection. */
export class Caller {
  #connection: Connection | null = null;
  #waiting: PromiseWithResolvers<Answer> | null = null;

  static async open(socket: string): Promise<Caller> {
    const caller = new Caller();
    caller.#connection = await Connection.open(
      socket,
      (answer) => caller.#waiting?.resolve(answer),
      (error) => caller.#waiting?.reject(error),
    );
    return caller;
  }

  /** @throws if the answer has another status */
  async ask(request: string, status: number): Promise<Answer> {
    this.#waiting = Promise.withResolvers();
    this.#connection!.send(request);
    const answer = await this.#waiting.promise;
    if (answer.status !== status) throw new Error(`${status} expected: ${answer.head} ${answer.body}`);
    return answer;
  }

  [Symbol.dispose](): void {
    this.#connection?.close();
  }
}
