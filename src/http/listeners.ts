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

/** How long a request may be under way to us, on this machine or from near it. */
const UNDER_WAY_MS = 100;

/** How many descriptors no ordinary connection gets, so that probes and Prometheus still learn that there are no others. */
const KEPT_FOR_HEALTH = 48;

/** How long a connection by a Unix socket has to ask, where there are many that do not. */
const UNIX_PATIENCE_MS = 2000;

/** An endpoint that accepts connections. */
interface Served {
  /** As the settings name it. */
  name: string;
  server: Server;
  /** Of a Unix socket that the daemon made: it goes when the daemon stops. */
  file: SocketFile | null;
  made: boolean;
}

/** Where clients find it, as it can be written in a flag. */
export interface Found {
  address: string;
  tls: boolean;
}

export interface ListenersParts {
  http: HttpServer;
  /** How many descriptors there can be. */
  descriptors: number;
  /** `null` where TCP is plain. */
  tls: TlsServer | null;
  /** Who is at the other end of a handshake that is done. */
  peerByTls: (socket: TLSSocket) => Peer | 'refused';
}

/**
 * The endpoints of the daemon. Each accepts connections, records who is at the other end, and hands the connection to the one
 * HTTP server, which need not listen itself (node:http documents this use of its `connection` event). With TLS the connection
 * goes to the HTTP server once its handshake is done, as node:https does it.
 */
export class Listeners {
  readonly #http: HttpServer;
  readonly #tls: TlsServer | null;
  readonly #served: Served[] = [];
  readonly #sockets = new Set<Socket>();
  /** Unauthenticated connections in the order of their accept, each with its time. */
  readonly #unauthenticated = { tcp: new Map<Socket, number>(), unix: new Map<Socket, number>() };
  readonly #maxUnauthenticated: number;
  readonly #peers = new WeakMap<object, Peer>();
  /** Of those by TCP: a connection that has closed does not tell its own any more. */
  readonly #addresses = new WeakMap<object, string>();
  readonly #last = new WeakSet<object>();
  readonly #descriptors: number;
  readonly #halfOpen = new HalfOpen();
  #draining = false;

  constructor({ http, descriptors, tls, peerByTls }: ListenersParts) {
    this.#http = http;
    this.#tls = tls;
    this.#descriptors = descriptors;
    this.#maxUnauthenticated = maxUnauthenticated(descriptors);
    // The server makes its list of connections when it listens, and it never will.
    http.emit('listening');
    stopTimeouts(http);
    // Node ends a half-closed connection otherwise, its answer unsent; it has no public name for this.
    (http as unknown as { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
    tls?.on('secureConnection', (socket) => {
      const peer = peerByTls(socket);
      if (peer === 'refused') socket.destroySoon();
      else this.#serve(socket, () => peer);
    });
  }

  /** Who is at the other end of a connection. */
  peerOf(socket: object): Peer {
    return this.#peers.get(socket) ?? 'tcp';
  }

  /** Whether a connection came by a Unix socket. */
  isUnix(socket: object): boolean {
    const peer = this.#peers.get(socket);
    return typeof peer === 'object' && 'uid' in peer;
  }

  /** Who is at the other end, for logs: a uid, or an IP address. */
  nameOfPeer(socket: object): string {
    const peer = this.#peers.get(socket);
    if (typeof peer === 'object' && 'uid' in peer) return `uid:${peer.uid}`;
    return this.#addresses.get(socket) ?? 'tcp';
  }

  /** Whether a connection took one of the last descriptors: it is only asked how the daemon is. */
  isOneOfTheLast(socket: object): boolean {
    return this.#last.has(socket);
  }

  /**
   * Serves those who connect to a socket that listens already.
   * @returns with the port that was picked
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
    // It looks for those that are too slow only while there are any: a daemon that nobody calls makes no system call.
    if (this.#sockets.size === 0) this.#http.emit('listening');
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) stopTimeouts(this.#http);
      this.#forgetUnauthenticated(socket);
    });
    this.#limitUnauthenticated(socket, isUnix ? 'unix' : 'tcp');
    // SO_PEERCRED is of the moment of connect(2), so it holds for the life of the connection.
    if (isUnix) this.#serve(socket, (fd) => ({ uid: peerOf(fd).uid, needsToken }));
    else if (this.#tls === null) this.#serve(socket, () => 'tcp');
    else this.#tls.emit('connection', socket);
  }

  #serve(socket: Socket, peerOn: (fd: number) => Peer): void {
    try {
      const fd = descriptorOf(socket);
      this.#peers.set(socket, peerOn(fd));
      if (socket.remoteAddress !== undefined) this.#addresses.set(socket, socket.remoteAddress);
      // The kernel gives the lowest number that is free.
      if (fd >= this.#descriptors - KEPT_FOR_HEALTH) this.#last.add(socket);
    } catch {
      socket.destroy(); // gone already
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
    // Legitimate clients may connect in a burst, before the first of them is read from.
    if (kind === 'unix' && now - since < UNIX_PATIENCE_MS) return;
    connections.delete(oldest);
    oldest.destroy();
  }

  #forgetUnauthenticated(socket: Socket): void {
    this.#unauthenticated.tcp.delete(socket);
    this.#unauthenticated.unix.delete(socket);
  }

  /** Takes a connection out of the unauthenticated ones. */
  noteAuthenticated(socket: Socket): void {
    this.#forgetUnauthenticated(carrierOf(socket));
  }

  /** Accepts nobody any more; a Unix socket's file goes. */
  stop(): void {
    for (const { server, file } of this.#served) {
      // First: while this one listens, no other daemon puts a socket of its own there.
      if (file !== null) removeSocketFile(file);
      server.close();
    }
  }

  /** What {@link handOver} would hand on. */
  get served(): InheritedSocket[] {
    return this.#served.map(({ name, server, made, file }) => ({
      address: name,
      fd: descriptorOf(server),
      made,
      ...(file !== null && { file }),
    }));
  }

  /** Accepts nobody any more, while the sockets stay for the next image: whoever connects waits in their queue. */
  handOver(): InheritedSocket[] {
    const sockets = this.served;
    return this.#served.map(({ server }, at) => {
      const handed = { ...sockets[at]!, fd: duplicateOverExec(descriptorOf(server)) };
      server.close();
      return handed;
    });
  }

  /**
   * From now on each answer ends its connection. Connections on which nothing is asked are left for a moment: a request may be
   * under way on them, and would be lost with them.
   */
  async drain(): Promise<void> {
    this.#draining = true;
    await setTimeout(UNDER_WAY_MS);
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Ends what is still connected: at once where nothing is being answered, by force after the grace. */
  async close(graceMs: number): Promise<void> {
    this.#http.closeIdleConnections();
    const ended = [...this.#sockets].map((socket) => new Promise<void>((resolve) => socket.once('close', resolve)));
    await Promise.race([Promise.all(ended), setTimeout(graceMs)]);
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Node has no public name for the timer of a server's timeouts; `listening` starts it anew. */
function stopTimeouts(http: HttpServer): void {
  const name = Object.getOwnPropertySymbols(http).find(({ description }) =>
    description?.endsWith('connectionsCheckingInterval'),
  );
  if (name !== undefined) clearInterval((http as unknown as Record<symbol, NodeJS.Timeout>)[name]);
}

/** The accepted connection that TLS is spoken on; one that is plain is its own. Node has no public name for this either. */
function carrierOf(socket: Socket): Socket {
  return (socket as Socket & { _parent: Socket | null })._parent ?? socket;
}

function start(server: Server, fd: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  // With a descriptor Node takes the backlog from here alone, not from the options.
  server.listen({ fd, backlog: BACKLOG }, BACKLOG, () => {
    server.off('error', reject);
    resolve();
  });
  return promise;
}
