import { Listeners } from '../model/listeners.ts';

/** Something that happened to the journal and that belongs in the daemon's log. */
export interface Notice {
  what: 'damaged' | 'restored';
  reason: string;
  /** The new name of the damaged file. */
  setAside?: string;
}

/** The notices of one image of the daemon. A notice waits until it is published to at least one listener. */
export class Notices {
  /** The last notice of this image. */
  last: Notice | null = null;
  #pending: Notice | null = null;
  readonly #listeners = new Listeners<[Notice]>();

  get isPending(): boolean {
    return this.#pending !== null;
  }

  /** Records a notice. A later one replaces one that is still pending. */
  report(notice: Notice): void {
    this.last = notice;
    this.#pending = notice;
  }

  /** Subscribes a listener, and publishes a pending notice at once. */
  on(listener: (notice: Notice) => void): () => void {
    const end = this.#listeners.on(listener);
    this.publish();
    return end;
  }

  /** Passes the pending notice to the listeners, once there is one. */
  publish(): void {
    if (this.#pending === null || this.#listeners.size === 0) return;
    const notice = this.#pending;
    this.#pending = null;
    this.#listeners.emit(notice);
  }
}
