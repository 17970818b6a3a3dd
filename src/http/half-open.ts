import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { holderOf, isHungUp } from '../kernel/socket-diag.ts';
import { descriptorOf } from './descriptor-of.ts';
import { HALF_OPEN_CHECK_MS, HALF_OPEN_PROBE_MS } from './limits.ts';
import { answerDueOn } from './problems.ts';

const CHECKS_PER_PROBE = Math.round(HALF_OPEN_PROBE_MS / HALF_OPEN_CHECK_MS);

/** A connection whose client has shut down its sending side while an answer is due. */
interface HalfClosed {
  /** The socket of HTTP, and the accepted connection under it; the two differ with TLS. */
  socket: Socket;
  carrier: Socket;
  isUnix: boolean;
  checks: number;
}

/**
 * Keeps connections open whose client has shut down its sending side, and closes those whose client has disconnected. Both look like an
 * end of input, because TCP sends a FIN for shutdown(2) and for close(2). So this asks the kernel, and repeats it while an answer is due.
 */
export class HalfOpen {
  readonly #halfClosed = new Set<HalfClosed>();
  #timer: NodeJS.Timeout | null = null;

  /** Follows a connection. @param carrier the accepted connection; the socket itself without TLS */
  watch(socket: Socket, carrier: Socket, isUnix: boolean): void {
    socket.once('end', () => {
      // If no answer is due, Node.js ends the connection.
      if (answerDueOn(socket) === null || socket.destroyed) return;
      const halfClosed: HalfClosed = { socket, carrier, isUnix, checks: 0 };
      this.#halfClosed.add(halfClosed);
      socket.once('close', () => this.#forget(halfClosed));
      this.#timer ??= setInterval(() => this.#checkAll(), HALF_OPEN_CHECK_MS);
      check(halfClosed);
    });
  }

  #checkAll(): void {
    for (const halfClosed of this.#halfClosed) check(halfClosed);
  }

  #forget(halfClosed: HalfClosed): void {
    this.#halfClosed.delete(halfClosed);
    if (this.#halfClosed.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}

function check(halfClosed: HalfClosed): void {
  const { socket, carrier, isUnix, checks } = halfClosed;
  if (socket.destroyed) return;
  halfClosed.checks += 1;
  if (isHungUp(descriptorOf(carrier))) {
    socket.destroy();
    return;
  }
  if (isUnix) return;
  const ours = { address: carrier.localAddress ?? '', port: carrier.localPort ?? 0 };
  const theirs = { address: carrier.remoteAddress ?? '', port: carrier.remotePort ?? 0 };
  const holder = holderOf(ours, theirs);
  if (holder === 'closed') socket.destroy();
  else if (holder === 'elsewhere' && checks % CHECKS_PER_PROBE === 0) probe(answerDueOn(socket));
}

/**
 * Sends an interim response, which HTTP/1.1 clients skip (RFC 9110 15.2). If the client has disconnected, its kernel answers with a
 * reset, which the next check finds. After the headers of the answer, its further data or TCP keep-alive finds the same.
 */
function probe(due: ServerResponse | null): void {
  if (due !== null && !due.headersSent && due.req.httpVersion === '1.1') due.writeProcessing();
}
