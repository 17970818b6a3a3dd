import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, statSync, unlinkSync } from 'node:fs';
import type { Server as HttpServer } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { TLSSocket, Server as TlsServer } from 'node:tls';
import type { Peer } from '../clients/clients.ts';
import type { SocketAccess } from '../config/config.ts';
import { duplicateOverExec } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { listensAt } from '../kernel/listening.ts';
import { tryLock } from '../kernel/lock.ts';
import { peerOf } from '../kernel/peer.ts';
import { bindUnix } from '../kernel/unix-socket.ts';
import { descriptorOf } from './descriptor-of.ts';
import { HalfOpen } from './half-open.ts';
import { strangersAmong, TCP_KEEP_ALIVE_MS } from './limits.ts';
import { closeGently } from './linger.ts';
import { type HandedOn, nameOf, type Place } from './places.ts';

/** How long a request may be under way to us, on this machine or from near it. */
const UNDER_WAY_MS = 100;

/** How many descriptors no ordinary connection gets, so that probes and Prometheus still learn that there are no others. */
const KEPT_FOR_HEALTH = 48;

/** Beyond the backlog of the kernel's default, so that a burst of clients need not retry. */
const BACKLOG = 4096;

/** A place that is served. */
interface Served {
  /** As the settings name it. */
  name: string;
  server: Server;
  /** Of a Unix socket that the daemon made: it goes when the daemon stops. */
  file: string | null;
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
  socket: SocketAccess;
  /** `null` where TCP is plain. */
  tls: TlsServer | null;
  /** Who is at the other end of a handshake that is done. */
  peerByTls: (socket: TLSSocket) => Peer | 'refused';
}

/**
 * The places where the daemon is served. Each accepts, notes who is at the other end, and hands the connection to the one
 * HTTP server, which need not listen itself (node:http documents this use of its `connection` event). With TLS the connection
 * goes to the HTTP server once its handshake is done, as node:https does it.
 */
export class Listeners {
  readonly #http: HttpServer;
  readonly #access: SocketAccess;
  readonly #tls: TlsServer | null;
  readonly #served: Served[] = [];
  readonly #sockets = new Set<Socket>();
  /** Those on which nobody has shown yet who is asking, the oldest first. */
  readonly #strangers = { tcp: new Set<Socket>(), unix: new Set<Socket>() };
  readonly #mostStrangers: number;
  readonly #peers = new WeakMap<object, Peer>();
  /** Of those by TCP: a connection that has closed does not tell its own any more. */
  readonly #addresses = new WeakMap<object, string>();
  readonly #last = new WeakSet<object>();
  readonly #descriptors: number;
  readonly #halfOpen = new HalfOpen();
  #draining = false;

  constructor({ http, descriptors, socket: access, tls, peerByTls }: ListenersParts) {
    this.#access = access;
    this.#http = http;
    this.#tls = tls;
    this.#descriptors = descriptors;
    this.#mostStrangers = strangersAmong(descriptors);
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
   * @returns with the port that was picked
   * @throws {Error} in one sentence: in use by another daemon, or not to be had
   */
  async listen({ address, socket }: Place): Promise<Found> {
    const bound = socket === undefined ? null : listensAt(socket.fd);
    const isUnix = 'unix' in (bound ?? address);
    const server = createServer({
      // A client may shut down its sending side after its request.
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    });
    const needsToken = 'token' in address && address.token === true;
    server.on('connection', (socket) => this.#accept(socket, { isUnix, needsToken }));
    if (socket !== undefined) await start(server, { fd: socket.fd });
    else if ('unix' in address) await listenUnix(server, address.unix, this.#access);
    else if ('host' in address) await listenTcp(server, address.host, address.port);
    const made = socket?.made ?? true;
    const at = listensAt(descriptorOf(server))!;
    this.#served.push({ name: nameOf(address), server, file: made && 'unix' in at ? at.unix : null, made });
    return { address: nameOf(at), tls: this.#tls !== null && !isUnix };
  }

  #accept(socket: Socket, { isUnix, needsToken }: { isUnix: boolean; needsToken: boolean }): void {
    // It looks for those that are too slow only while there are any: a daemon that nobody calls makes no system call.
    if (this.#sockets.size === 0) this.#http.emit('listening');
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) stopTimeouts(this.#http);
      this.#forgetStranger(socket);
    });
    this.#boundStrangers(socket, isUnix ? 'unix' : 'tcp');
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

  /** Whoever only connects must not take what those need who may. */
  #boundStrangers(socket: Socket, kind: 'tcp' | 'unix'): void {
    const strangers = this.#strangers[kind];
    strangers.add(socket);
    if (strangers.size <= this.#mostStrangers) return;
    const [oldest] = strangers;
    strangers.delete(oldest!);
    oldest!.destroy();
  }

  #forgetStranger(socket: Socket): void {
    this.#strangers.tcp.delete(socket);
    this.#strangers.unix.delete(socket);
  }

  /** Somebody has shown on this connection who is asking. */
  noteKnown(socket: Socket): void {
    this.#forgetStranger(carrierOf(socket));
  }

  /** Accepts nobody any more; a Unix socket's file goes. */
  stop(): void {
    for (const { server, file } of this.#served) {
      server.close();
      if (file !== null) rmSync(file, { force: true });
    }
  }

  /** Accepts nobody any more, while the sockets stay for the next image: whoever connects waits in their queue. */
  handOn(): HandedOn[] {
    return this.#served.map(({ name, server, made }) => {
      const fd = duplicateOverExec(descriptorOf(server));
      server.close();
      return { address: name, fd, made };
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

async function listenUnix(server: Server, path: string, access: SocketAccess): Promise<void> {
  const directory = dirname(path);
  // Who may connect must get there.
  const mode = (access.mode & 0o077) === 0 ? 0o700 : 0o755;
  if (!existsSync(directory)) mkdirSync(directory, { recursive: true, mode });
  // Two daemons that both find a stale socket must not both take it over.
  using _lock = await lockDirectory(directory);
  if (existsSync(path)) {
    if (!statSync(path).isSocket()) throw new Error(`${path} is there already and is no socket: listen elsewhere`);
    if (await answers(path)) throw new Error(`another daemon is serving ${path}: stop it, or listen elsewhere`);
    unlinkSync(path);
  }
  await start(server, { fd: bindPrivately(path, access) });
}

/** bind(2) makes the file with the mode that the umask leaves: there is no moment in which those could connect who may not. */
function bindPrivately(path: string, { mode, gid }: SocketAccess): number {
  const umask = process.umask(0o177);
  try {
    const { fd } = bindUnix(path);
    if (gid !== undefined) chownSync(path, -1, gid);
    chmodSync(path, mode);
    return fd;
  } finally {
    process.umask(umask);
  }
}

/** Held by another daemon for a moment, if at all. */
async function lockDirectory(directory: string): Promise<Disposable> {
  for (let tries = 0; tries < 100; tries += 1) {
    const lock = tryLock(directory);
    if (lock !== null) return lock;
    await setTimeout(20);
  }
  throw new Error(`${directory} is locked by another process, so no socket can be made in it`);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error) => {
      // Anything but these may be a daemon that is busy (EAGAIN: its backlog is full).
      resolve(!isErrno(error, 'ECONNREFUSED', 'ENOENT'));
    });
  });
}

async function listenTcp(server: Server, host: string, port: number): Promise<void> {
  try {
    await start(server, { host, port });
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE'))
      throw new Error(`${host}:${port} is in use: stop what listens there, or listen elsewhere`);
    if (isErrno(error, 'EADDRNOTAVAIL', 'ENOTFOUND')) throw new Error(`${host} is no address of this machine`);
    if (isErrno(error, 'EACCES')) throw new Error(`port ${port} needs a privilege (CAP_NET_BIND_SERVICE)`);
    throw error;
  }
}

function start(server: Server, where: { fd: number } | { host: string; port: number }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  // With a descriptor Node takes the backlog from here alone, not from the options.
  server.listen({ ...where, backlog: BACKLOG }, BACKLOG, () => {
    server.off('error', reject);
    resolve();
  });
  return promise;
}
