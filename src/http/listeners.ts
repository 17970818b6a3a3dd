import type { Server as HttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import type { TLSSocket, Server as TlsServer } from 'node:tls';
import type { Peer } from '../clients/clients.ts';
import { removeSocketFile, type SocketFile } from '../files/made.ts';
import { duplicateOverExec } from '../kernel/descriptor.ts';
import { listensAt } from '../kernel/listening.ts';
import { peerOf } from '../kernel/peer.ts';
import { BACKLOG } from './bind-address.ts';
import { descriptorOf } from './descriptor-of.ts';
import { HalfOpen } from './half-open.ts';
import { maxUnauthenticated, TCP_KEEP_ALIVE_MS } from './limits.ts';
import { closeGently } from './linger.ts';
import { type BoundEndpoint, type InheritedSocket, nameOf } from './listen-addresses.ts';

/** The time that a request may take to arrive from this machine or a near one. */
const IN_FLIGHT_MS = 100;

/** The number of descriptors reserved for probes and Prometheus, so that they still get an answer when all others are in use. */
const RESERVED_FOR_HEALTH = 48;

/** The time that an unauthenticated connection on a Unix socket gets before it may be closed to make room. */
const UNIX_GRACE_MS = 2000;

/** An endpoint that accepts connections. */
interface Served {
  /** Its address in the form of the settings. */
  name: string;
  server: Server;
  /** The file of a Unix socket that the daemon created, which is removed when the daemon stops. */
  file: SocketFile | null;
  made: boolean;
}

/** The address that an endpoint is bound to, in the form of the settings. */
export interface Found {
  address: string;
  tls: boolean;
}

export interface ListenersParts {
  http: HttpServer;
  /** RLIMIT_NOFILE of the daemon. */
  descriptors: number;
  /** `null` without TLS. */
  tls: TlsServer | null;
  /** Identifies the peer after a TLS handshake. */
  peerByTls: (socket: TLSSocket) => Peer | 'refused';
}

/**
 * The endpoints of the daemon. Each accepts connections, records the peer, and passes the connection to the single HTTP server. That
 * server does not listen itself; node:http documents this use of its `connection` event. With TLS the connection is passed on after
 * the handshake, as in node:https.
 */
export class Listeners {
  readonly #http: HttpServer;
  readonly #tls: TlsServer | null;
  readonly #served: Served[] = [];
  readonly #sockets = new Set<Socket>();
  /** Unauthenticated connections in the order of their accept, with the time of each. */
  readonly #unauthenticated = { tcp: new Map<Socket, number>(), unix: new Map<Socket, number>() };
  readonly #maxUnauthenticated: number;
  readonly #peers = new WeakMap<object, Peer>();
  /** The IP addresses of TCP peers, because a closed socket has none any more. */
  readonly #addresses = new WeakMap<object, string>();
  readonly #onReserved = new WeakSet<object>();
  readonly #descriptors: number;
  readonly #halfOpen = new HalfOpen();
  #draining = false;

  constructor({ http, descriptors, tls, peerByTls }: ListenersParts) {
    this.#http = http;
    this.#tls = tls;
    this.#descriptors = descriptors;
    this.#maxUnauthenticated = maxUnauthenticated(descriptors);
    // The server creates its list of connections at this event, and it never listens itself.
    http.emit('listening');
    stopTimeouts(http);
    // Otherwise Node.js ends a half-closed connection before its answer is sent. The option is not public.
    (http as unknown as { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
    tls?.on('secureConnection', (socket) => {
      const peer = peerByTls(socket);
      if (peer === 'refused') socket.destroySoon();
      else this.#serve(socket, () => peer);
    });
  }

  /** Returns the peer of a connection. */
  peerOf(socket: object): Peer {
    return this.#peers.get(socket) ?? 'tcp';
  }

  /** Reports whether a connection is on a Unix socket. */
  isUnix(socket: object): boolean {
    const peer = this.#peers.get(socket);
    return typeof peer === 'object' && 'uid' in peer;
  }

  /** Returns the peer for logs: `uid:<n>` or an IP address. */
  nameOfPeer(socket: object): string {
    const peer = this.#peers.get(socket);
    if (typeof peer === 'object' && 'uid' in peer) return `uid:${peer.uid}`;
    return this.#addresses.get(socket) ?? 'tcp';
  }

  /** Reports whether a connection uses one of the reserved descriptors, on which only health routes are served. */
  isOnReservedDescriptor(socket: object): boolean {
    return this.#onReserved.has(socket);
  }

  /**
   * Accepts connections on a listening socket.
   * @returns its address, with the port that the kernel chose
   */
  async listen({ address, socket }: BoundEndpoint): Promise<Found> {
    const at = listensAt(socket.fd)!;
    const isUnix = 'unix' in at;
    const server = createServer({
      // A client may shut down its sending side after its request.
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    });
    const needsToken = 'token' in address && address.token === true;
    server.on('connection', (socket) => this.#accept(socket, { isUnix, needsToken }));
    await start(server, socket.fd);
    const { made, file } = socket;
    this.#served.push({ name: nameOf(address), server, file: file ?? null, made });
    return { address: nameOf(at), tls: this.#tls !== null && !isUnix };
  }

  #accept(socket: Socket, { isUnix, needsToken }: { isUnix: boolean; needsToken: boolean }): void {
    // The server checks its timeouts only while it has connections, so that an idle daemon makes no system call.
    if (this.#sockets.size === 0) this.#http.emit('listening');
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) stopTimeouts(this.#http);
      this.#forgetUnauthenticated(socket);
    });
    this.#limitUnauthenticated(socket, isUnix ? 'unix' : 'tcp');
    // SO_PEERCRED is fixed at connect(2), so it is valid for the life of the connection.
    if (isUnix) this.#serve(socket, (fd) => ({ uid: peerOf(fd).uid, needsToken }));
    else if (this.#tls === null) this.#serve(socket, () => 'tcp');
    else this.#tls.emit('connection', socket);
  }

  #serve(socket: Socket, peerOn: (fd: number) => Peer): void {
    try {
      const fd = descriptorOf(socket);
      this.#peers.set(socket, peerOn(fd));
      if (socket.remoteAddress !== undefined) this.#addresses.set(socket, socket.remoteAddress);
      // The kernel allocates the lowest free number, so the number shows how many descriptors are in use.
      if (fd >= this.#descriptors - RESERVED_FOR_HEALTH) this.#onReserved.add(socket);
    } catch {
      socket.destroy(); // the client has disconnected already
      return;
    }
    closeGently(socket);
    this.#http.emit('connection', socket);
    const carrier = carrierOf(socket);
    this.#halfOpen.watch(socket, carrier, carrier.remoteAddress === undefined);
  }

  /** Closes the oldest unauthenticated connection beyond the limit, so that they cannot use up all descriptors. */
  #limitUnauthenticated(socket: Socket, kind: 'tcp' | 'unix'): void {
    const connections = this.#unauthenticated[kind];
    const now = performance.now();
    connections.set(socket, now);
    if (connections.size <= this.#maxUnauthenticated) return;
    const [oldest, since] = connections.entries().next().value!;
    // Legitimate clients may connect in a burst, before the daemon reads their first request.
    if (kind === 'unix' && now - since < UNIX_GRACE_MS) return;
    connections.delete(oldest);
    oldest.destroy();
  }

  #forgetUnauthenticated(socket: Socket): void {
    this.#unauthenticated.tcp.delete(socket);
    this.#unauthenticated.unix.delete(socket);
  }

  /** Notes that a connection is authenticated, so that it is no longer limited. */
  noteAuthenticated(socket: Socket): void {
    this.#forgetUnauthenticated(carrierOf(socket));
  }

  /** Stops accepting connections, and removes the files of Unix sockets. */
  stop(): void {
    for (const { server, file } of this.#served) {
      // The file is removed first: while this socket listens, no other daemon replaces the file.
      if (file !== null) removeSocketFile(file);
      server.close();
    }
  }

  /** The sockets that {@link handOver} would hand over. */
  get served(): InheritedSocket[] {
    return this.#served.map(({ name, server, made, file }) => ({
      address: name,
      fd: descriptorOf(server),
      made,
      ...(file !== null && { file }),
    }));
  }

  /** Stops accepting connections, but keeps the sockets open for the next image. New connections wait in their queues. */
  handOver(): InheritedSocket[] {
    const sockets = this.served;
    return this.#served.map(({ server }, at) => {
      const handed = { ...sockets[at]!, fd: duplicateOverExec(descriptorOf(server)) };
      server.close();
      return handed;
    });
  }

  /**
   * Makes each answer close its connection. Waits a moment before idle connections are closed, because a request may be in flight on
   * them and would be lost.
   */
  async drain(): Promise<void> {
    this.#draining = true;
    await setTimeout(IN_FLIGHT_MS);
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Closes all connections: idle ones at once, the others after their answer or after the grace. */
  async close(graceMs: number): Promise<void> {
    this.#http.closeIdleConnections();
    const ended = [...this.#sockets].map((socket) => new Promise<void>((resolve) => socket.once('close', resolve)));
    await Promise.race([Promise.all(ended), setTimeout(graceMs)]);
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Stops the timer of a server's timeouts, which Node.js has no public name for. The event `listening` starts it again. */
function stopTimeouts(http: HttpServer): void {
  const name = Object.getOwnPropertySymbols(http).find(({ description }) =>
    description?.endsWith('connectionsCheckingInterval'),
  );
  if (name !== undefined) clearInterval((http as unknown as Record<symbol, NodeJS.Timeout>)[name]);
}

/** Returns the accepted connection under a TLS socket, or the socket itself without TLS. Node.js has no public name for it. */
function carrierOf(socket: Socket): Socket {
  return (socket as Socket & { _parent: Socket | null })._parent ?? socket;
}

function start(server: Server, fd: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  // With a descriptor Node.js reads the backlog only from this argument, not from the options.
  server.listen({ fd, backlog: BACKLOG }, BACKLOG, () => {
    server.off('error', reject);
    resolve();
  });
  return promise;
}
