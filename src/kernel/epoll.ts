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
const EPOLLHUP = 0x010;
const EPOLLONESHOT = 0x4000_0000;
const EPOLLET = 0x8000_0000;

// struct epoll_event is packed on x64 only (include/uapi/linux/eventpoll.h).
const EVENT_SIZE = byArchitecture({ x64: 12, arm64: 16 });
const DATA_AT = EVENT_SIZE - 8;

/** How many are taken at a time. Thousands may end at once, and nobody else is served while they are dealt with. */
const BATCH = 64;

/** A pidfd became readable: its process has ended, and with `reaped` somebody has collected it too (6.9). */
export interface Readiness<T> {
  token: T;
  reaped: boolean;
}

/** What a registration calls by itself, for descriptors that are no pidfds: pipes and sockets. */
export class Wakeup {
  /** Reads or writes until EAGAIN: the registration is edge-triggered. It must not throw. */
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

/** Names one registration; a late event of an earlier one on the same slot is told apart by the generation. */
export interface Registration {
  readonly slot: number;
  readonly generation: number;
}

/**
 * One epoll descriptor that watches any number of pidfds, itself watched by Node's event loop: no thread, and the loop's
 * own cost does not grow with the pidfds.
 *
 * Edge-triggered: a pidfd gives one edge when its process ends and one when it is reaped, and nobody reads it empty.
 */
export class Epoll<T> {
  readonly #epoll = new Descriptor(checked('epoll_create1', epollCreate(EPOLL_CLOEXEC)));
  readonly #slots: Slot<T>[] = [];
  readonly #free: number[] = [];
  readonly #events = Buffer.alloc(EVENT_SIZE * BATCH);
  readonly #event = Buffer.alloc(EVENT_SIZE);
  // Kept referenced for the life of the daemon: koffi does not.
  #loop: InstanceType<typeof koffi.node.PollHandle> | null = null;

  /**
   * Calls `onWake` from the event loop whenever something is ready; it must then {@link drain}.
   */
  start(onWake: () => void): void {
    // The callback comes from inside the poll phase, where microtasks do not run and a throw surfaces elsewhere: both are for the
    // check phase, which follows at once. What must not wait even for that is done here.
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
   * Watches a descriptor; one that is ready already is reported by the next drain.
   * @param once whether a report ends the watch until {@link rearm}: for a descriptor that becomes ready often
   */
  add(fd: Descriptor, token: T, { once = false } = {}): Registration {
    const index = this.#free.pop() ?? this.#slots.push({ generation: 0, fd: null, token: null }) - 1;
    const slot = this.#slots[index]!;
    try {
      this.#control(EPOLL_CTL_ADD, fd, EPOLLET + EPOLLIN + (once ? EPOLLONESHOT : 0), index);
    } catch (error) {
      this.#free.push(index);
      throw error;
    }
    slot.fd = fd;
    slot.token = token;
    return { slot: index, generation: slot.generation };
  }

  /** Watches once more; a descriptor that is ready already is reported by the next drain. */
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
   * Ends a registration. Call it before the descriptor is closed: an epoll entry lives as long as the open file
   * description, and after close(2) there is no number left to delete it by.
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

  /** Takes what is ready, without waiting. Where that was not `all`, the loop wakes again. */
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

  /** Stops watching. The epoll descriptor goes with the process. */
  stop(): void {
    this.#loop?.close();
    this.#loop = null;
  }
}
