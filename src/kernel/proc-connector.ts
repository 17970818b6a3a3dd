import { readSync } from 'node:fs';
import koffi from 'koffi';
import { Descriptor } from './descriptor.ts';
import { isErrno } from './errno.ts';
import { bind, checked } from './libc.ts';

const socket = bind('int socket(int domain, int type, int protocol)');
const bindSocket = bind('int bind(int fd, void *address, unsigned int length)');
const send = bind('long send(int fd, void *message, size_t length, int flags)');
const setsockopt = bind('int setsockopt(int fd, int level, int name, void *value, unsigned int length)');

const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_CONNECTOR = 11;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;

// include/uapi/linux/connector.h, cn_proc.h
const CN_IDX_PROC = 1;
const PROC_CN_MCAST_LISTEN = 1;
const NLMSG_DONE = 3;
const HEADERS = 36; // struct nlmsghdr, struct cn_msg
const DATA = HEADERS + 16; // struct proc_event up to its union
const PROC_EVENT_NONE = 0;
const PROC_EVENT_FORK = 1;
const PROC_EVENT_EXEC = 2;
const PROC_EVENT_EXIT = 0x8000_0000;

/** In bytes: room for about 20,000 events. */
const RECEIVE_BUFFER = 4 * 2 ** 20;

/** A change of a process. Events of threads other than the main thread are left out. */
export interface ProcEvent {
  type: 'fork' | 'exec' | 'exit';
  pid: number;
}

/**
 * Receives the kernel's events about every process of the machine: fork, exec, exit (drivers/connector/cn_proc.c). It needs
 * CAP_NET_ADMIN, and works only in the initial user, pid and network namespaces.
 */
export class ProcConnector {
  readonly #socket: Descriptor;
  readonly #buffer = Buffer.alloc(1024);
  // koffi does not keep a reference to its poll handle, so this object must.
  #loop: InstanceType<typeof koffi.node.PollHandle> | null = null;
  #woken = false;

  /** Opens the connector. @returns `null` if this process may not listen or the kernel lacks the connector */
  static open(): ProcConnector | null {
    try {
      const fd = checked('socket', socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_CONNECTOR));
      const connector = new ProcConnector(new Descriptor(fd));
      if (connector.#listen()) return connector;
      connector.close();
    } catch (error) {
      if (!isErrno(error, 'EPROTONOSUPPORT', 'EAFNOSUPPORT', 'EPERM', 'EACCES', 'ECONNREFUSED')) throw error;
    }
    return null;
  }

  private constructor(descriptor: Descriptor) {
    this.#socket = descriptor;
  }

  /** @returns false if this process may not listen; the kernel may also send no answer in that case */
  #listen(): boolean {
    const { fd } = this.#socket;
    const size = Buffer.alloc(4);
    size.writeInt32LE(RECEIVE_BUFFER);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4) === -1) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, size, 4);
    const address = Buffer.alloc(12); // struct sockaddr_nl; port 0 makes the kernel choose one
    address.writeUInt16LE(AF_NETLINK, 0);
    address.writeUInt32LE(CN_IDX_PROC, 8);
    try {
      checked('bind', bindSocket(fd, address, address.length));
      const message = Buffer.alloc(HEADERS + 4);
      message.writeUInt32LE(message.length, 0);
      message.writeUInt16LE(NLMSG_DONE, 4);
      message.writeUInt32LE(CN_IDX_PROC, 16); // cn_msg.id.idx
      message.writeUInt32LE(1, 20); // CN_VAL_PROC
      message.writeUInt16LE(4, 32); // cn_msg.len
      message.writeUInt32LE(PROC_CN_MCAST_LISTEN, HEADERS);
      checked('send', send(fd, message, message.length, 0));
    } catch (error) {
      this.close();
      throw error;
    }
    // The kernel queues the acknowledgement, with an errno, before send(2) returns. Events may precede it.
    for (;;) {
      const length = this.#read();
      if (length === 'nothing' || length === 'lost') return false;
      if (this.#buffer.readUInt32LE(HEADERS) === PROC_EVENT_NONE) return this.#buffer.readUInt32LE(DATA) === 0;
    }
  }

  /** Calls `onWake` from the event loop whenever events are queued; `onWake` must then call {@link drain}. */
  start(onWake: () => void): void {
    this.#loop = koffi.node.poll(this.#socket.fd, { readable: true }, () => {
      if (this.#woken) return;
      this.#woken = true;
      setImmediate(() => {
        this.#woken = false;
        if (this.#loop !== null) onWake();
      });
    });
  }

  /**
   * Takes all queued events.
   * @returns the events, and `lost` if the socket's buffer overflowed and events are missing
   */
  drain(): { events: ProcEvent[]; lost: boolean } {
    const events: ProcEvent[] = [];
    let lost = false;
    for (;;) {
      const length = this.#read();
      if (length === 'nothing') return { events, lost };
      if (length === 'lost') lost = true;
      else {
        const event = this.#parsed();
        if (event !== null) events.push(event);
      }
    }
  }

  #parsed(): ProcEvent | null {
    const at = (index: number): number => this.#buffer.readInt32LE(DATA + 4 * index);
    switch (this.#buffer.readUInt32LE(HEADERS)) {
      case PROC_EVENT_FORK: // parent's pid and tgid, child's pid and tgid
        return at(2) === at(3) ? { type: 'fork', pid: at(3) } : null;
      case PROC_EVENT_EXEC: // pid and tgid
        return { type: 'exec', pid: at(1) };
      case PROC_EVENT_EXIT:
        return at(0) === at(1) ? { type: 'exit', pid: at(1) } : null;
      default:
        return null;
    }
  }

  /** Reads one message into the buffer. Each message holds one event. @returns its length in bytes */
  #read(): number | 'nothing' | 'lost' {
    try {
      return readSync(this.#socket.fd, this.#buffer);
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return 'nothing';
      if (isErrno(error, 'ENOBUFS')) return 'lost'; // reported once; later messages are still queued
      throw error;
    }
  }

  close(): void {
    this.#loop?.close();
    this.#loop = null;
    this.#socket.close();
  }
}
