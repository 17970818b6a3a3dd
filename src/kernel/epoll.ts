import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, byArchitecture, checked } from './libc.ts';

const epollCreate = bind('int epoll_create1(int flags)');
const epollControl = bind('int epoll_ctl(int epfd, int operation, int fd, void *event)');
const epollWait = bind('int epoll_wait(int epfd, void *events, int maximum, int timeout)');

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 0x001;
const EPOLLOUT = 0x004;
const EPOLLHUP = 0x010;
const EPOLLONESHOT = 0x4000_0000;
const EPOLLET = 0x8000_0000;

// struct epoll_event is packed on x64 only (include/uapi/linux/eventpoll.h).
const EVENT_SIZE = byArchitecture({ x64: 12, arm64: 16 });
const DATA_AT = EVENT_SIZE - 8;

/** Events per drain. Thousands of processes may end at once, and the event loop serves no request while it handles a batch. */
const BATCH = 64;

/** A pidfd became readable, so its process has ended; `reaped` if its parent has also waited for it (EPOLLHUP, since 6.9). */
export interface Readiness<T> {
  token: T;
  reaped: boolean;
}

/** The token of a descriptor that is not a pidfd, such as a pipe or a socket: it carries its own callback. */
export class Wakeup {
  /** Must read or write until EAGAIN, because the registration is edge-triggered, and must not throw. */
  readonly ready: () => void;

  constructor(ready: () => void) {
    this.ready = ready;
  }
}

interface Slot<T> {
  generation: number;
  fd: Descriptor | null;
  token: T | null;
}

/** Identifies a registration. The generation distinguishes it from an earlier registration in the same slot with a late event. */
export interface Registration {
  readonly slot: number;
  readonly generation: number;
}

/**
 * One epoll instance for any number of pidfds (epoll(7)). Node.js's event loop polls only the epoll descriptor, so it needs no thread
 * and its cost does not grow with the number of pidfds.
 *
 * Registrations are edge-triggered: a pidfd reports once when its process ends and once when it is reaped, and stays readable.
 */
export class Epoll<T> {
  readonly #epoll = new Descriptor(checked('epoll_create1', epollCreate(EPOLL_CLOEXEC)));
  readonly #slots: Slot<T>[] = [];
  readonly #free: number[] = [];
  readonly #events = Buffer.alloc(EVENT_SIZE * BATCH);
  readonly #event = Buffer.alloc(EVENT_SIZE);
  // koffi does not keep a reference to its poll handle, so this object must.
  #loop: InstanceType<typeof koffi.node.PollHandle> | null = null;

  /** Calls `onWake` from the event loop whenever a descriptor is ready; `onWake` must then call {@link drain}. */
  start(onWake: () => void): void {
    // koffi calls back inside the poll phase. Microtasks do not run there, and an exception surfaces in unrelated code.
    // The check phase follows at once: setImmediate runs the microtasks and throws the exception there.
    this.#loop = koffi.node.poll(this.#epoll.fd, { readable: true }, () => {
      let fault: unknown = null;
      try {
        onWake();
      } catch (error) {
        fault = error;
      }
      setImmediate(() => {
        if (fault !== null) throw fault;
      });
    });
  }

  /**
   * Registers a descriptor. If it is ready already, the next drain reports it.
   * @param once disables the registration after one report until {@link rearm} (EPOLLONESHOT), for descriptors that are ready often
   * @param writable also reports when the descriptor can be written to again
   * @throws {SystemError} ENOMEM, ENOSPC, EPERM
   */
  add(fd: Descriptor, token: T, { once = false, writable = false } = {}): Registration {
    const index = this.#free.pop() ?? this.#slots.push({ generation: 0, fd: null, token: null }) - 1;
    const slot = this.#slots[index]!;
    try {
      const events = EPOLLET + EPOLLIN + (writable ? EPOLLOUT : 0) + (once ? EPOLLONESHOT : 0);
      this.#control(EPOLL_CTL_ADD, fd, events, index);
    } catch (error) {
      this.#free.push(index);
      throw error;
    }
    slot.fd = fd;
    slot.token = token;
    return { slot: index, generation: slot.generation };
  }

  /** Enables a `once` registration again. If the descriptor is ready already, the next drain reports it. */
  rearm({ slot: index, generation }: Registration): void {
    const slot = this.#slots[index]!;
    if (slot.generation !== generation || slot.fd === null) return;
    this.#control(EPOLL_CTL_MOD, slot.fd, EPOLLET + EPOLLIN + EPOLLONESHOT, index);
  }

  #control(operation: number, fd: Descriptor, events: number, index: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeUInt32LE(index, DATA_AT);
    this.#event.writeUInt32LE(this.#slots[index]!.generation, DATA_AT + 4);
    checked('epoll_ctl', epollControl(this.#epoll.fd, operation, fd.fd, this.#event));
  }

  /**
   * Ends a registration. Call it before closing the descriptor: the epoll entry lives as long as the open file description, and
   * EPOLL_CTL_DEL needs the descriptor's number (epoll(7)).
   */
  remove(registration: Registration): void {
    const slot = this.#slots[registration.slot]!;
    if (slot.generation !== registration.generation || slot.fd === null) return;
    checked('epoll_ctl', epollControl(this.#epoll.fd, EPOLL_CTL_DEL, slot.fd.fd, this.#event));
    slot.fd = null;
    slot.token = null;
    slot.generation = (slot.generation + 1) >>> 0;
    this.#free.push(registration.slot);
  }

  /**
   * Takes one batch of ready descriptors without waiting.
   * @returns the batch, and `all: false` if more may be ready; the event loop then wakes again
   */
  drain(): { ready: Readiness<T>[]; all: boolean } {
    const ready: Readiness<T>[] = [];
    const count = this.#wait();
    for (let at = 0; at < count * EVENT_SIZE; at += EVENT_SIZE) {
      const slot = this.#slots[this.#events.readUInt32LE(at + DATA_AT)]!;
      if (slot.generation !== this.#events.readUInt32LE(at + DATA_AT + 4) || slot.token === null) continue;
      ready.push({ token: slot.token, reaped: (this.#events.readUInt32LE(at) & EPOLLHUP) !== 0 });
    }
    return { ready, all: count < BATCH };
  }

  #wait(): number {
    try {
      return checked('epoll_wait', epollWait(this.#epoll.fd, this.#events, BATCH, 0));
    } catch (error) {
      if (isErrno(error, 'EINTR')) return 0;
      throw error;
    }
  }

  /** Stops polling. The epoll descriptor stays open until the process exits. */
  stop(): void {
    this.#loop?.close();
    this.#loop = null;
  }
}
