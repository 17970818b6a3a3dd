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

/** Beyond the backlog of the kernel's default, so that a burst of clients need not retry. */
export const BACKLOG = 4096;

/** sun_path is 108 bytes with its NUL (unix(7)). */
const LONGEST_PATH = 107;

/**
 * Makes a socket that listens at an address. Clients wait in its queue until a server accepts them.
 * @param made gets the socket file and the directories that are made for it
 * @param trial leaves a stale socket of a dead daemon in its place; the result then has no use
 * @throws {Error} in one sentence: another daemon listens there, or the address cannot be used
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
      `the socket ${address.unix} cannot be made: ${sentenceOf(error)}: give --listen unix:PATH in a directory of uid ${process.getuid!()}`,
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
      throw new Error(`${host}:${port} is in use: stop what listens there, or listen elsewhere`);
    if (isErrno(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT')) throw new Error(`${host} is no address of this machine`);
    if (isErrno(error, 'EACCES', 'EPERM'))
      throw new Error(`port ${port} needs a privilege (CAP_NET_BIND_SERVICE): give another port`);
    throw error;
  }
}

async function resolve(host: string): Promise<{ address: string }> {
  try {
    return await lookup(host);
  } catch {
    throw new Error(`${host} is no address of this machine`);
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
      `the socket path ${path} is over ${LONGEST_PATH} bytes: give --listen unix:PATH with a shorter one`,
    );
  const directory = dirname(path);
  // Who may connect must get there.
  makeDirectory(directory, (access.mode & 0o077) === 0 ? 0o700 : 0o755, made);
  // Two daemons that both find a stale socket must not both take it over.
  using _lock = await lockDirectory(directory);
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there !== undefined) {
    if (!there.isSocket()) throw new Error(`${path} is there already and is no socket: listen elsewhere`);
    if (await answers(path, there.uid))
      throw new Error(`another daemon is serving ${path}: stop it, or listen elsewhere`);
    if (trial) {
      accessSync(directory, constants.W_OK | constants.X_OK);
      return { fd: -1 };
    }
    unlinkSync(path);
  }
  return bindPrivately(path, access, made);
}

/** bind(2) makes the file with the mode that the umask leaves: there is no moment in which those could connect who may not. */
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

/** Held by another daemon for a moment, if at all. */
async function lockDirectory(directory: string): Promise<Disposable> {
  for (let tries = 0; tries < 100; tries += 1) {
    const lock = tryLock(directory);
    if (lock !== null) return lock;
    await setTimeout(20);
  }
  throw new Error(`${directory} is locked by another process, so no socket can be made in it`);
}

/** @throws {Error} where that cannot be found out */
async function answers(path: string, uid: number): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path, () => {
    socket.destroy();
    resolve(true);
  });
  socket.on('error', (error) => {
    if (isErrno(error, 'EACCES', 'EPERM'))
      reject(
        new Error(`${path} belongs to uid ${uid}, and may be in use: remove it as that user, or listen elsewhere`),
      );
    // Anything but these may be a daemon that is busy (EAGAIN: its backlog is full).
    else resolve(!isErrno(error, 'ECONNREFUSED', 'ENOENT'));
  });
  return promise;
}
