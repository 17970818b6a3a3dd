import { closeSync } from 'node:fs';
import type { Address } from '../config/config.ts';
import { UsageError } from '../config/options.ts';
import { listensAt } from '../kernel/listening.ts';
import type { Passed } from '../kernel/notify.ts';

/** A listening socket that is there already. */
export interface ListeningSocket {
  fd: number;
  /** By a daemon, which does away with its file at its end; else by the service manager. */
  made: boolean;
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
  if (builtIn.length > 0) return builtIn;
  throw new UsageError('XDG_RUNTIME_DIR is not set: give --listen unix:PATH or --listen tcp:HOST:PORT');
}

export interface Wanted {
  listen: readonly Address[];
  /** Whether somebody has said so. */
  listenGiven: boolean;
}

/** After an upgrade: the sockets of the image before. One that nobody wants any more is closed. */
export function placesAfter({ listen, listenGiven }: Wanted, sockets: readonly HandedOn[]): Place[] {
  const names = sockets.map(({ address }) => address);
  const wanted = listenGiven ? listen : defaultsOf(names, listen);
  for (const { address, fd } of sockets) if (!wanted.some((each) => nameOf(each) === address)) closeSync(fd);
  // Twice tcp:…:0 is two sockets of one name.
  const once = new Map(wanted.map((address) => [nameOf(address), address]));
  return [...once.values()].flatMap((address): Place[] => {
    const found = sockets.filter((socket) => socket.address === nameOf(address));
    return found.length === 0 ? [{ address }] : found.map((socket) => ({ address, socket }));
  });
}

/**
 * At a first start: the sockets that the service manager passed (sd_listen_fds(3)) serve the addresses that they are bound to, and
 * those that name them.
 * @throws {UsageError} where there is no place to serve at
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
    if ('passed' in address) throw new Error(`--listen ${nameOf(address)}: the service manager passed no such socket`);
    return [{ address }];
  });
}
