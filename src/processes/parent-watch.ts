import type { Registration } from '../kernel/epoll.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import type { Process } from '../model/process.ts';

/** A process that is watched because children of it have handles: when it ends, they may become the daemon's. */
export class ParentWatch {
  readonly pid: number;
  readonly pidfd: Pidfd;
  readonly children = new Set<Process>();
  registration: Registration | null = null;

  constructor(pid: number, pidfd: Pidfd) {
    this.pid = pid;
    this.pidfd = pidfd;
  }
}
