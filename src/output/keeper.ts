import { constants, openSync } from 'node:fs';
import { constants as os } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import { makeSocketPair, sendWith } from '../kernel/socket-pair.ts';
import { startProgram } from '../kernel/spawn.ts';
import { FIRST_SLOT, keeperProgram, NAME, placing, REGISTER } from './keeper-program.ts';
import { KeeperRegister } from './keeper-register.ts';
import { KeepersFile, type KnownKeeper } from './keepers-file.ts';

/** How soon a full socket is tried again, in milliseconds. */
const RETRY_MS = 1;

/** A keeper that holds nothing ends after this, in milliseconds. */
const LINGER_MS = 1000;

export interface KeeperParts {
  /** The keepers of the image before this one. */
  handed: readonly KnownKeeper[];
  /** The state directory. */
  directory: string;
  bootId: string;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** Reaps the keeper of this pid. */
  onStart(pid: number): Promise<unknown>;
}

/** A process that holds pipes. */
interface Holder {
  pidfd: Pidfd;
  pid: number;
  startTicks: number;
  registration: Registration;
  register: KeeperRegister;
  /** `null` if an earlier daemon has started it: it takes no messages from this one. */
  channel: Descriptor | null;
  /** The slot of each stream, by its name. */
  slots: Map<string, number>;
  /** Slots that are free again, and the first one that was never used. */
  free: number[];
  next: number;
}

/** A stream whose pipe is held. */
interface Held {
  reader: Descriptor;
  holder: Holder;
}

/**
 * Holds the read ends of pipes while no daemon runs, so that their writers neither fail nor lose output: a process of a few pages that
 * makes a dozen system calls (see {@link keeperProgram}). The next daemon finds it by {@link KeepersFile}, and what it holds by its
 * {@link KeeperRegister}.
 */
export class Keeper {
  readonly #parts: KeeperParts;
  readonly #file: KeepersFile;
  readonly #nothing = new Descriptor(openSync('/dev/null', constants.O_RDONLY));
  readonly #holders = new Set<Holder>();
  readonly #held = new Map<string, Held>();
  #current: Holder | null = null;
  #linger: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#file = new KeepersFile(parts.directory, parts.bootId);
  }

  /**
   * Takes over what the keepers of earlier daemons hold.
   * @returns for each stream by its name, a read end of this daemon's own
   */
  resume(): Map<string, Descriptor> {
    const found = new Map<string, Descriptor>();
    const known = new Map([...this.#file.read(), ...this.#parts.handed].map((each) => [each.pid, each]));
    if (this.#parts.handed.length > 0) this.#file.write([...known.values()]); // the file may have been removed
    for (const { pid, startTicks } of known.values()) {
      const holder = this.#find(pid, startTicks);
      if (holder === null) continue;
      for (const { slot, name, reader } of holder.register.pipesOf(pid)) {
        holder.slots.set(name, slot);
        found.set(name, reader);
        this.#held.set(name, { reader, holder });
      }
      if (holder.slots.size === 0) this.#end(holder);
    }
    this.#tidy();
    return found;
  }

  /**
   * Gives the keeper a copy of a read end.
   * @param reader stays open until {@link release}
   * @throws {SystemError} of the start of a keeper: EAGAIN, ENOMEM, EMFILE, ENFILE, ENOSPC
   */
  async hold(name: string, reader: Descriptor): Promise<void> {
    if (this.#linger !== null) clearTimeout(this.#linger);
    this.#linger = null;
    for (;;) {
      this.#current ??= this.#start();
      const holder = this.#current;
      this.#held.set(name, { reader, holder });
      if (await this.#put(holder, name, reader)) return;
      if (this.#current === holder) this.#current = null; // it was killed
    }
  }

  /** Has the keeper close its copy. */
  release(name: string): void {
    const held = this.#held.get(name);
    if (held === undefined) return;
    this.#held.delete(name);
    const { holder } = held;
    const slot = holder.slots.get(name);
    if (slot === undefined) return;
    holder.slots.delete(name);
    holder.register.erase(slot);
    void this.#send(holder, slot, this.#nothing).then(() => holder.free.push(slot));
    if (holder.slots.size > 0) return;
    if (holder.channel === null) this.#end(holder);
    else this.#linger ??= setTimeout(() => this.#endIdle(), LINGER_MS).unref();
  }

  /** Leaves the pipes to the next daemon. */
  stop(): void {
    this.#stopped = true;
    this.#endIdle();
  }

  /** The keepers, for the next image: it may find the state directory empty. */
  get handover(): KnownKeeper[] {
    return [...this.#holders].map(({ pid, startTicks }) => ({ pid, startTicks }));
  }

  #endIdle(): void {
    this.#linger = null;
    const idle = this.#current;
    if (idle === null || idle.slots.size > 0) return;
    this.#current = null;
    this.#end(idle);
  }

  #start(): Holder {
    const { ours, theirs } = makeSocketPair();
    using opened = new DisposableStack();
    opened.use(theirs);
    const channel = opened.use(ours);
    const register = opened.use(KeeperRegister.create());
    const pid = startProgram(keeperProgram, NAME, theirs);
    const pidfd = Pidfd.open(pid);
    void this.#parts.onStart(pid);
    try {
      const { startTicks } = readStat(pid)!;
      sendWith(channel, placing(REGISTER, true), [register.fd]);
      const others = this.handover;
      this.#file.write([...others, { pid, startTicks }]);
      const holder = this.#watch({ pid, startTicks, pidfd, register, channel });
      opened.move();
      theirs.close();
      return holder;
    } catch (error) {
      pidfd.signal(os.signals.SIGKILL);
      pidfd.close();
      throw error;
    }
  }

  #watch(facts: Pick<Holder, 'pid' | 'startTicks' | 'pidfd' | 'register' | 'channel'>): Holder {
    const wakeup = new Wakeup(() => this.#lost(holder));
    const registration = this.#parts.epoll.add(facts.pidfd, wakeup);
    const holder: Holder = { ...facts, registration, slots: new Map(), free: [], next: FIRST_SLOT };
    this.#holders.add(holder);
    return holder;
  }

  /** Moves the pipes of a keeper that was killed to another one. */
  #lost(holder: Holder): void {
    this.#forget(holder);
    if (this.#stopped) return;
    for (const [name, held] of this.#held)
      if (held.holder === holder) void this.hold(name, held.reader).catch(() => {}); // it is safe while we live
  }

  #end(holder: Holder): void {
    try {
      holder.pidfd.signal(os.signals.SIGKILL);
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error;
    }
    this.#forget(holder);
  }

  #forget(holder: Holder): void {
    if (!this.#holders.delete(holder)) return;
    if (this.#current === holder) this.#current = null;
    this.#parts.epoll.remove(holder.registration);
    holder.pidfd.close();
    holder.register.close();
    holder.channel?.close();
    this.#tidy();
  }

  #tidy(): void {
    if (this.#holders.size === 0) this.#file.remove();
  }

  /** @returns false if the keeper has ended */
  async #put(holder: Holder, name: string, reader: Descriptor): Promise<boolean> {
    const slot = holder.free.pop() ?? holder.next++;
    holder.slots.set(name, slot);
    holder.register.record(slot, name, reader);
    return await this.#send(holder, slot, reader);
  }

  /** @returns false if the keeper has ended */
  async #send({ channel, slots }: Holder, slot: number, descriptor: Descriptor): Promise<boolean> {
    if (channel === null) return false;
    try {
      while (!sendWith(channel, placing(slot, slots.size === 0), [descriptor.fd])) await sleep(RETRY_MS);
      return true;
    } catch (error) {
      if (channel.closed || isErrno(error, 'EPIPE', 'ECONNRESET')) return false;
      throw error;
    }
  }

  #find(pid: number, startTicks: number): Holder | null {
    try {
      const pidfd = Pidfd.open(pid);
      try {
        if (readStat(pid)?.startTicks === startTicks) {
          const register = KeeperRegister.of(pid);
          return this.#watch({ pid, startTicks, pidfd, register, channel: null });
        }
      } catch (error) {
        pidfd.close();
        throw error;
      }
      pidfd.close();
    } catch (error) {
      // It has ended, or its pid is another process's.
      if (!isErrno(error, 'ESRCH', 'ENOENT', 'EACCES', 'EPERM', 'EINVAL')) throw error;
    }
    return null;
  }
}
