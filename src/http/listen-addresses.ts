import { closeSync, existsSync } from 'node:fs';
import type { Address } from '../config/config.ts';
import { identify, removeSocketFile, type SocketFile } from '../files/made.ts';
import { isInputName } from '../input/stored-inputs.ts';
import { listensAt } from '../kernel/listening.ts';
import type { Passed } from '../kernel/notify.ts';

/** A listening socket that exists already. */
export interface ListeningSocket {
  fd: number;
  /** Whether a daemon created it; otherwise the service manager did. */
  made: boolean;
  /** The file of a Unix socket that a daemon created, which is removed when the daemon stops. */
  file?: SocketFile | undefined;
}

/** A listening socket that survived execve(2), with the address as the settings name it. */
export interface InheritedSocket extends ListeningSocket {
  address: string;
}

/** An address to serve, with its socket if that exists already. */
export interface Endpoint {
  address: Address;
  socket?: ListeningSocket;
}

/** An endpoint whose socket listens. */
export type BoundEndpoint = Required<Endpoint>;

/** Returns an address as the settings name it. */
export function nameOf(address: Address): string {
  if ('passed' in address) return `fd:${address.passed}`;
  if ('unix' in address) return `unix:${address.unix}`;
  return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** The defaults without `--listen`: passed sockets, else the built-in addresses. */
function defaultsOf(names: readonly string[], builtIn: readonly Address[]): readonly Address[] {
  const passed = [...new Set(names)].filter((name) => name.startsWith('fd:'));
  if (passed.length > 0) return passed.map((name) => ({ passed: name.slice('fd:'.length) }));
  return builtIn;
}

/** The addresses of the settings. */
export interface Wanted {
  listen: readonly Address[];
  /** Whether `--listen` was given. */
  listenGiven: boolean;
}

/** Returns the endpoints after an upgrade, with the sockets of the previous image. */
export function endpointsAfterUpgrade(
  { listen, listenGiven }: Wanted,
  sockets: readonly InheritedSocket[],
): Endpoint[] {
  const names = sockets.map(({ address }) => address);
  const wanted = listenGiven ? listen : defaultsOf(names, listen);
  // `tcp:…:0` may be given twice, which makes two sockets with one name.
  const once = new Map(wanted.map((address) => [nameOf(address), address]));
  return [...once.values()].flatMap((address): Endpoint[] => {
    const found = sockets.filter((socket) => socket.address === nameOf(address));
    if (found.length === 0) return [{ address }];
    return found.map((socket) => ({ address, socket: { ...socket, file: socket.file ?? fileOf(address, socket) } }));
  });
}

/** Closes inherited sockets that no endpoint uses, and removes their files. */
export function closeUnwanted(endpoints: readonly Endpoint[], sockets: readonly InheritedSocket[]): void {
  for (const { address, fd, file } of sockets) {
    if (endpoints.some((endpoint) => nameOf(endpoint.address) === address)) continue;
    if (file !== undefined) removeSocketFile(file);
    closeSync(fd);
  }
}

/** Builds the error of an `fd:` address without a socket. */
export function notPassed(address: Address): Error {
  return new Error(`--listen ${nameOf(address)}: the service manager did not pass a socket of this name`);
}

/** Finds the file of a socket from an earlier version of the daemon, which hands over none. */
function fileOf(address: Address, { made }: ListeningSocket): SocketFile | undefined {
  return made && 'unix' in address && existsSync(address.unix) ? identify(address.unix) : undefined;
}

/**
 * Returns the endpoints at a first start. A socket from the service manager (sd_listen_fds(3)) belongs to the address that it is bound
 * to, or to the `fd:` address with its name.
 * @throws {Error} if a passed socket is not listed, is listed twice or does not listen, or if a listed one was not passed
 */
export function endpointsAtStart({ listen, listenGiven }: Wanted, passed: readonly Passed[]): Endpoint[] {
  const sockets = passed
    .filter(({ kind, name }) => kind !== 'pidfd' && (kind === 'other' || !isInputName(name)))
    .map(({ fd, name }) => {
      const bound = listensAt(fd);
      if (bound === null)
        throw new Error(`the descriptor ${name} from the service manager is not a listening stream socket`);
      return { socket: { fd, made: false }, names: [`fd:${name}`, nameOf(bound)] };
    });
  const wanted = listenGiven
    ? listen
    : defaultsOf(
        sockets.map(({ names: [name] }) => name!),
        listen,
      );
  for (const { names } of sockets) {
    const [one, another] = wanted.map(nameOf).filter((name) => names.includes(name));
    if (another !== undefined)
      throw new Error(`--listen ${one} and --listen ${another} are the same passed socket: give one of them`);
  }
  const unwanted = sockets.find(({ names }) => !wanted.some((address) => names.includes(nameOf(address))));
  if (unwanted !== undefined)
    throw new Error(
      `no --listen uses the passed socket ${unwanted.names.join(', ')}: add --listen ${unwanted.names[0]}`,
    );
  return wanted.flatMap((address): Endpoint[] => {
    const found = sockets.filter(({ names }) => names.includes(nameOf(address)));
    if (found.length > 0) return found.map(({ socket }) => ({ address, socket }));
    if ('passed' in address) throw notPassed(address);
    return [{ address }];
  });
}
