import {
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { constants as os } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Descriptor } from '../kernel/descriptor.ts';
import { type Epoll, type Registration, Wakeup } from '../kernel/epoll.ts';
import { isErrno } from '../kernel/errno.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import { makeSocketPair, sendWith } from '../kernel/socket-pair.ts';
import { PROGRAM_FD, startProgram } from '../kernel/spawn.ts';
import { Label, SyscallProgram, WordOf } from '../kernel/syscall-program.ts';

/** What it is called in /proc and by ps(1). */
const NAME = 'waitd-keeper';

/** Its descriptors: the socket is 0, what a message brings becomes 1, then there is the register, then the pipes. */
const RECEIVED = 1;
const REGISTER = 2;
const FIRST_SLOT = 3;

/** Of the register, for each slot: the inode number of the pipe and the name of its stream, as text, or nothing. */
const RECORD = 64;

/** How often a full socket is tried again. */
const RETRY_MS = 1;

/** A keeper that holds nothing ends after this. */
const LINGER_MS = 1000;

/** A keeper, told from a later process of its pid by its start. */
export interface KnownKeeper {
  pid: number;
  /** Since the boot, as /proc/PID/stat tells it. */
  startTicks: number;
}

export interface KeeperParts {
  /** Those of the image before this one. */
  handed: readonly KnownKeeper[];
  /** The state directory. */
  directory: string;
  bootId: string;
  epoll: Pick<Epoll<Wakeup>, 'add' | 'remove'>;
  /** Reaps a keeper, whose pid it is given. */
  onStart(pid: number): Promise<unknown>;
}

/** A process that holds pipes. One that an earlier daemon has started is not ours to command. */
interface Holder {
  pidfd: Pidfd;
  pid: number;
  startTicks: number;
  registration: Registration;
  register: MemoryFile;
  channel: Descriptor | null;
  /** By the name of the stream. */
  slots: Map<string, number>;
  /** Slots that hold nothing any more, and the first one that never did. */
  free: number[];
  next: number;
}

/** A stream whose pipe is held. */
interface Held {
  reader: Descriptor;
  holder: Holder;
}

/**
 * Holds the read ends of pipes while there is no daemon, so that their writers neither fail nor lose what they wrote: a process of
 * a few pages that makes a dozen system calls (see {@link keeperProgram}).
 *
 * What it holds is written in a file in memory, the register, which it holds as well. The next daemon finds the keeper by its pid and
 * start, reads the register, and opens the pipes anew by their names in /proc: no other process can hand them to it.
 */
export class Keeper {
  readonly #parts: KeeperParts;
  readonly #file: string;
  readonly #nothing = new Descriptor(openSync('/dev/null', constants.O_RDONLY));
  readonly #holders = new Set<Holder>();
  readonly #held = new Map<string, Held>();
  #current: Holder | null = null;
  #linger: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#file = join(parts.directory, 'keepers');
  }

  /**
   * Takes up what the keepers of earlier daemons hold.
   * @returns by the name of the stream, a descriptor of our own
   */
  resume(): Map<string, Descriptor> {
    const found = new Map<string, Descriptor>();
    const known = new Map([...this.#known(), ...this.#parts.handed].map((each) => [each.pid, each]));
    if (this.#parts.handed.length > 0) this.#write([...known.values()]); // the file may have been removed
    for (const { pid, startTicks } of known.values()) {
      const holder = this.#find(pid, startTicks);
      if (holder === null) continue;
      for (const [name, reader] of readersOf(holder)) {
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
    record(holder.register, slot, '');
    void this.#send(holder, slot, this.#nothing).then(() => holder.free.push(slot));
    if (holder.slots.size > 0) return;
    if (holder.channel === null) this.#end(holder);
    else this.#linger ??= setTimeout(() => this.#endIdle(), LINGER_MS).unref();
  }

  /** Leaves what is held to the next daemon. */
  stop(): void {
    this.#stopped = true;
    this.#endIdle();
  }

  /** For the next image, which may find the state directory empty. */
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
    const register = opened.use(MemoryFile.create(NAME));
    const pid = startProgram(keeperProgram, NAME, theirs);
    const pidfd = Pidfd.open(pid);
    void this.#parts.onStart(pid);
    try {
      const { startTicks } = readStat(pid)!;
      sendWith(channel, placing(REGISTER, true), [register.fd]);
      const others = this.handover;
      this.#write([...others, { pid, startTicks }]);
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

  /** Somebody has killed it: another one takes over. */
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
    if (this.#holders.size > 0) return;
    try {
      rmSync(this.#file, { force: true });
    } catch {
      // It names keepers that are not there any more, which the next daemon finds out.
    }
  }

  /** @returns false where it is not there any more */
  async #put(holder: Holder, name: string, reader: Descriptor): Promise<boolean> {
    const slot = holder.free.pop() ?? holder.next++;
    holder.slots.set(name, slot);
    record(holder.register, slot, `${fstatSync(reader.fd).ino} ${name}`);
    return await this.#send(holder, slot, reader);
  }

  /** @returns false where it is not there any more */
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

  #known(): KnownKeeper[] {
    try {
      const { boot, keepers } = JSON.parse(readFileSync(this.#file, 'utf8')) as KeepersFile;
      return boot === this.#parts.bootId ? keepers : [];
    } catch {
      return [];
    }
  }

  #write(keepers: KeepersFile['keepers']): void {
    // Never flushed to the disk: a machine that starts anew has no keepers.
    writeFileSync(`${this.#file}.new`, JSON.stringify({ boot: this.#parts.bootId, keepers } satisfies KeepersFile), {
      mode: 0o600,
    });
    renameSync(`${this.#file}.new`, this.#file);
  }

  #find(pid: number, startTicks: number): Holder | null {
    try {
      const pidfd = Pidfd.open(pid);
      try {
        if (readStat(pid)?.startTicks === startTicks) {
          const register = new MemoryFile(openSync(`/proc/${pid}/fd/${REGISTER}`, constants.O_RDWR));
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

interface KeepersFile {
  boot: string;
  keepers: KnownKeeper[];
}

/** A message for the keeper. @param isLast whether it holds no pipe then */
function placing(slot: number, isLast: boolean): Buffer {
  const body = Buffer.alloc(16);
  body.writeBigUInt64LE(BigInt(slot), 0);
  body.writeBigUInt64LE(BigInt(keeperProgram.addressOf(isLast ? end : wait)), 8);
  return body;
}

function record(register: MemoryFile, slot: number, text: string): void {
  const bytes = Buffer.alloc(RECORD);
  bytes.write(text);
  writeSync(register.fd, bytes, 0, RECORD, slot * RECORD);
}

/** Opens what a keeper holds. A pipe that it had not received yet is not there. */
function* readersOf({ pid, register, slots }: Holder): Generator<[name: string, reader: Descriptor]> {
  const bytes = Buffer.alloc(fstatSync(register.fd).size);
  readSync(register.fd, bytes, 0, bytes.length, 0);
  for (let slot = FIRST_SLOT; slot * RECORD < bytes.length; slot += 1) {
    const text = bytes.toString('latin1', slot * RECORD, (slot + 1) * RECORD).replace(/\0+$/, '');
    const [inode, name] = text.split(' ');
    if (inode === undefined || name === undefined) continue;
    const reader = openPipe(`/proc/${pid}/fd/${slot}`, inode);
    if (reader === null) continue;
    slots.set(name, slot);
    yield [name, reader];
  }
}

function openPipe(path: string, inode: string): Descriptor | null {
  try {
    const reader = new Descriptor(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    if (String(fstatSync(reader.fd).ino) === inode) return reader;
    reader.close();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  return null;
}

const NOTHING = 0;
const SIG_SETMASK = 2;
const SIGSET_SIZE = 8; // the kernel's own
const PR_SET_NAME = 15;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const AFTER_ZERO = 9;
const O_CLOEXEC = 0o2000000; // Node does not list it

const [place, next, wait, end] = [new Label(), new Label(), new Label(), new Label()];
const keeperProgram = makeKeeperProgram();

/**
 * Each message brings one descriptor, which replaces the one in the slot that the message names, and says what comes when the daemon is
 * gone: the end, or to wait to be killed by the next daemon.
 */
function makeKeeperProgram(): SyscallProgram {
  const program = new SyscallProgram();
  program.call('close', [PROGRAM_FD]);
  program.call('setsid', []);
  program.call('prctl', [PR_SET_NAME, program.text(NAME)]);
  program.call('chdir', [program.text('/')]);
  // SIGTERM ends it, so that it holds up no service manager that stops everything.
  program.call('rt_sigprocmask', [SIG_SETMASK, program.words([NOTHING]), NOTHING, SIGSET_SIZE]);
  // The slot goes right where dup3(2) wants it, the address where the program looks for what comes next. The descriptor gets the lowest
  // free number.
  const parts = program.words([new WordOf(place, 2), 8, new WordOf(next, AFTER_ZERO), 8]); // two struct iovec
  const control = program.bytes(Buffer.alloc(24)); // struct cmsghdr with one descriptor
  const message = program.words([NOTHING, NOTHING, parts, 2, control, 24, NOTHING]); // struct msghdr
  program.place(next);
  program.call('recvmsg', [0, message, MSG_CMSG_CLOEXEC], { next: place, zero: end, failed: wait });
  program.place(place);
  program.call('dup3', [RECEIVED, NOTHING, O_CLOEXEC]);
  program.call('close', [RECEIVED], { next, failed: next });
  program.place(wait);
  program.call('ppoll', [NOTHING, 0, NOTHING, NOTHING, SIGSET_SIZE], { next: wait, failed: wait });
  program.place(end);
  program.call('exit_group', [0]);
  return program;
}
