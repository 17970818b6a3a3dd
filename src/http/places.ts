import { closeSync, existsSync } from 'node:fs';
import type { Address } from '../config/config.ts';
import { identify, removeSocketFile, type SocketFile } from '../files/made.ts';
import { listensAt } from '../kernel/listening.ts';
import type { Passed } from '../kernel/notify.ts';

/** A listening socket that is there already. */
export interface ListeningSocket {
  fd: number;
  /** By a daemon; else by the service manager. */
  made: boolean;
  /** The file of a Unix socket that a daemon made: it goes when the daemon stops. */
  file?: SocketFile | undefined;
}

/** The same from an earlier image of this process, with what its place is called in the settings. It lives over execve(2). */
export interface HandedOn extends ListeningSocket {
  address: string;
}

/** Where the daemon is to serve: with a socket that is there, or one that is to be made. */
export interface Place {
  address: Address;
  socket?: ListeningSocket;
}

/** A place whose socket listens. */
export type BoundPlace = Required<Place>;

/** An address as it is named in the settings. */
export function nameOf(address: Address): string {
  if ('passed' in address) return `fd:${address.passed}`;
  if ('unix' in address) return `unix:${address.unix}`;
  return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** What is served where nothing is said: what was passed, if anything was. */
function defaultsOf(names: readonly string[], builtIn: readonly Address[]): readonly Address[] {
  const passed = [...new Set(names)].filter((name) => name.startsWith('fd:'));
  if (passed.length > 0) return passed.map((name) => ({ passed: name.slice('fd:'.length) }));
  return builtIn;
}

export interface Wanted {
  listen: readonly Address[];
  /** Whether somebody has said so. */
  listenGiven: boolean;
}

/** After an upgrade: the sockets of the image before. */
export function placesAfter({ listen, listenGiven }: Wanted, sockets: readonly HandedOn[]): Place[] {
  const names = sockets.map(({ address }) => address);
  const wanted = listenGiven ? listen : defaultsOf(names, listen);
  // Twice tcp:…:0 is two sockets of one name.
  const once = new Map(wanted.map((address) => [nameOf(address), address]));
  return [...once.values()].flatMap((address): Place[] => {
    const found = sockets.filter((socket) => socket.address === nameOf(address));
    if (found.length === 0) return [{ address }];
    return found.map((socket) => ({ address, socket: { ...socket, file: socket.file ?? fileOf(address, socket) } }));
  });
}

/** Closes those that no place has any more, and removes their files. */
export function closeUnwanted(places: readonly Place[], sockets: readonly HandedOn[]): void {
  for (const { address, fd, file } of sockets) {
    if (places.some((place) => nameOf(place.address) === address)) continue;
    if (file !== undefined) removeSocketFile(file);
    closeSync(fd);
  }
}

export function notPassed(address: Address): Error {
  return new Error(`--listen ${nameOf(address)}: the service manager passed no such socket`);
}

/** Images of earlier versions hand no file over. */
function fileOf(address: Address, { made }: ListeningSocket): SocketFile | undefined {
  return made && 'unix' in address && existsSync(address.unix) ? identify(address.unix) : undefined;
}

/**
 * At a first start: the sockets that the service manager passed (sd_listen_fds(3)) serve the addresses that they are bound to, and
 * those that name them.
 * @throws {Error} for a socket that nobody wants or that is wanted twice, that does not listen, or that was not passed
 */
export function placesWith({ listen, listenGiven }: Wanted, passed: readonly Passed[]): Place[] {
  const sockets = passed
    .filter(({ isPidfd }) => !isPidfd)
    .map(({ fd, name }) => {
      const bound = listensAt(fd);
      if (bound === null)
        throw new Error(`what the service manager passed as ${name} is no stream socket that listens`);
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
      `no --listen wants the passed socket ${unwanted.names.join(', ')}: add --listen ${unwanted.names[0]}`,
    );
  return wanted.flatMap((address): Place[] => {
    const found = sockets.filter(({ names }) => names.includes(nameOf(address)));
    if (found.length > 0) return found.map(({ socket }) => ({ address, socket }));
    if ('passed' in address) throw notPassed(address);
    return [{ address }];
  });
}
