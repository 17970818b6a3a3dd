import { lookup } from 'node:dns/promises';
import { accessSync, chmodSync, chownSync, constants, lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Address, SocketAccess } from '../config/config.ts';
import { sentenceOf } from '../errors/sentence.ts';
import { identify, type Made, makeDirectory, removeSocketFile, type SocketFile } from '../files/made.ts';
import type { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { startListening } from '../kernel/listening.ts';
import { tryLock } from '../kernel/lock.ts';
import { bindTcp } from '../kernel/tcp-socket.ts';
import { bindUnix } from '../kernel/unix-socket.ts';
import type { ListeningSocket } from './listen-addresses.ts';

/** The number of connections that may wait to be accepted: enough for a burst of clients. */
export const BACKLOG = 4096;

/** sun_path is 108 bytes with its NUL (unix(7)). */
const LONGEST_PATH = 107;

/**
 * Creates a socket that listens on an address. Clients wait in its queue until a server accepts them.
 * @param access the mode and group of a Unix socket
 * @param made records the socket file and the directories that are created
 * @param trial keeps the stale socket file of a dead daemon; the result must then not be used
 * @throws {Error} with one sentence, if another daemon listens on the address or the address cannot be used
 */
export async function bindAddress(
  address: Exclude<Address, { passed: string }>,
  access: SocketAccess,
  made: Made,
  trial: boolean,
): Promise<ListeningSocket> {
  if ('host' in address) return { fd: (await listenTcp(address.host, address.port)).fd, made: true };
  try {
    return { made: true, ...(await listenUnix(address.unix, access, made, trial)) };
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ENOSPC', 'EDQUOT', 'ELOOP', 'ENAMETOOLONG', 'ENOENT'))
      throw error;
    throw new Error(
      `the socket ${address.unix} cannot be created: ${sentenceOf(error)}: give --listen unix:PATH in a directory of uid ${process.getuid!()}`,
    );
  }
}

async function listenTcp(host: string, port: number): Promise<Descriptor> {
  const { address } = await resolve(host);
  try {
    const descriptor = bindTcp(address, port);
    startListening(descriptor.fd, BACKLOG);
    return descriptor;
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE'))
      throw new Error(`${host}:${port} is in use: stop the program that listens there, or give another --listen`);
    if (isErrno(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT')) throw new Error(`${host} is not an address of this machine`);
    if (isErrno(error, 'EACCES', 'EPERM'))
      throw new Error(`port ${port} needs CAP_NET_BIND_SERVICE: give another port`);
    throw error;
  }
}

async function resolve(host: string): Promise<{ address: string }> {
  try {
    return await lookup(host);
  } catch {
    throw new Error(`${host} is not an address of this machine`);
  }
}

async function listenUnix(
  path: string,
  access: SocketAccess,
  made: Made,
  trial: boolean,
): Promise<{ fd: number; file?: SocketFile }> {
  if (Buffer.byteLength(path) > LONGEST_PATH)
    throw new Error(
      `the socket path ${path} has more than ${LONGEST_PATH} bytes: give --listen unix:PATH with a shorter one`,
    );
  const directory = dirname(path);
  // If other users may connect, they must be able to reach the socket.
  makeDirectory(directory, (access.mode & 0o077) === 0 ? 0o700 : 0o755, made);
  // The lock prevents two daemons from replacing the same stale socket.
  using _lock = await lockDirectory(directory);
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there !== undefined) {
    if (!there.isSocket()) throw new Error(`${path} exists and is not a socket: give another --listen`);
    if (await answers(path, there.uid))
      throw new Error(`another daemon is serving ${path}: stop it, or give another --listen`);
    if (trial) {
      accessSync(directory, constants.W_OK | constants.X_OK);
      return { fd: -1 };
    }
    unlinkSync(path);
  }
  return bindPrivately(path, access, made);
}

/** Binds with a restrictive umask, because bind(2) creates the file: nobody may connect before its group and mode are set. */
function bindPrivately(path: string, { mode, gid }: SocketAccess, made: Made): { fd: number; file: SocketFile } {
  const umask = process.umask(0o177);
  try {
    const { fd } = bindUnix(path);
    const file = identify(path);
    made.defer(() => removeSocketFile(file));
    if (gid !== undefined) giveToGroup(path, gid);
    chmodSync(path, mode);
    startListening(fd, BACKLOG);
    return { fd, file };
  } finally {
    process.umask(umask);
  }
}

function giveToGroup(path: string, gid: number): void {
  try {
    chownSync(path, -1, gid);
  } catch (error) {
    if (!isErrno(error, 'EPERM')) throw error;
    throw new Error(`uid ${process.getuid!()} is not in group ${gid}: give --socket-group one of its groups`);
  }
}

/** Locks a directory. Retries for 2 s, because another daemon holds the lock only while it binds its socket. */
async function lockDirectory(directory: string): Promise<Disposable> {
  for (let tries = 0; tries < 100; tries += 1) {
    const lock = tryLock(directory);
    if (lock !== null) return lock;
    await setTimeout(20);
  }
  throw new Error(`${directory} is locked by another process, so the socket cannot be created in it`);
}

/** Reports whether a daemon serves a Unix socket. @throws {Error} if this user may not connect to find out */
async function answers(path: string, uid: number): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path, () => {
    socket.destroy();
    resolve(true);
  });
  socket.on('error', (error) => {
    if (isErrno(error, 'EACCES', 'EPERM'))
      reject(
        new Error(`${path} belongs to uid ${uid}, and may be in use: remove it as that user, or give another --listen`),
      );
    // Any other error may come from a busy daemon (EAGAIN: its backlog is full).
    else resolve(!isErrno(error, 'ECONNREFUSED', 'ENOENT'));
  });
  return promise;
}
