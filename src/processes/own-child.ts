import type { Registration } from '../kernel/epoll.ts';
import type { Pidfd } from '../kernel/pidfd.ts';
import type { WaitEvent } from '../kernel/waitid.ts';

/** A child that the daemon started for itself. It has no handle and leaves no record. */
export class OwnChild {
  readonly pidfd: Pidfd;
  readonly ended = Promise.withResolvers<WaitEvent>();
  registration: Registration | null = null;

  constructor(pidfd: Pidfd) {
    this.pidfd = pidfd;
  }
}
