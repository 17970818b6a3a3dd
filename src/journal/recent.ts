import type { Handle, Process } from '../model/process.ts';
import type { Change } from './change.ts';

/** The most handles, and the most processes, that are cached. */
const MOST = 1024;

/**
 * Caches what was written last: a client that asks for a handle mostly does so right after the process ended. A cached handle is the
 * only object of it, so it is never older than the disk.
 */
export class Recent {
  readonly #handles = new Map<string, Handle>();
  /** The clients that have collected a process, only where all of them are known. */
  readonly #collectors = new Map<number, Set<string>>();

  handle(id: string): Handle | undefined {
    return this.#handles.get(id);
  }

  /** Returns the clients that have collected a process, `undefined` where only the tables know. */
  collectorsOf({ id }: Process): ReadonlySet<string> | undefined {
    return this.#collectors.get(id);
  }

  clear(): void {
    this.#handles.clear();
    this.#collectors.clear();
  }

  note(change: Change): void {
    switch (change.write) {
      case 'handle':
      case 'placed':
        this.#put(change.handle);
        break;
      case 'process': {
        const { process } = change;
        // A process that ended earlier may have closed handles in its set.
        for (const handle of process.handles) if (handle.description.pidfd !== null) this.#put(handle);
        // Before the end, no client can have collected the status.
        if (process.ending === null && !this.#collectors.has(process.id))
          putBounded(this.#collectors, process.id, new Set());
        break;
      }
      case 'collected':
        this.#collectors.get(change.process.id)?.add(change.client);
        break;
      case 'description':
      case 'output':
        // The change was made to another object of the same description.
        for (const [id, { description }] of this.#handles)
          if (description.id === change.description.id && description !== change.description) this.#handles.delete(id);
        break;
      case 'tombstone':
      case 'withdrawn':
        this.#handles.delete(change.handle.id);
        break;
    }
  }

  #put(handle: Handle): void {
    this.#handles.delete(handle.id);
    putBounded(this.#handles, handle.id, handle);
  }
}

/** Adds an entry; a full map loses its oldest one. */
function putBounded<K, V>(map: Map<K, V>, key: K, value: V): void {
  if (map.size >= MOST) map.delete(map.keys().next().value as K);
  map.set(key, value);
}
