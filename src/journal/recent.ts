import type { Handle, Process } from '../model/process.ts';
import type { Change } from './journal.ts';

/** How many handles, and how many processes, the journal remembers beside what is on disk. */
const MOST = 1024;

/**
 * What was written of late, in memory: most of what is asked for has just ended, and is asked for by whoever waits for it. A
 * handle in here is the one object that there is of it, so it is never older than the disk.
 */
export class Recent {
  readonly #handles = new Map<string, Handle>();
  /** Who has collected a process, where all that have are known. */
  readonly #collectors = new Map<number, Set<string>>();

  handle(id: string): Handle | undefined {
    return this.#handles.get(id);
  }

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
        this.#keep(change.handle);
        break;
      case 'process': {
        const { process } = change;
        // Of one that has ended before, some may be gone.
        for (const handle of process.handles) if (handle.description.pidfd !== null) this.#keep(handle);
        // What has not ended, nobody can have collected.
        if (process.ending === null && !this.#collectors.has(process.id))
          bounded(this.#collectors, process.id, new Set());
        break;
      }
      case 'collected':
        this.#collectors.get(change.process.id)?.add(change.client);
        break;
      case 'description':
      case 'output':
        // Another object of the same description was changed.
        for (const [id, { description }] of this.#handles)
          if (description.id === change.description.id && description !== change.description) this.#handles.delete(id);
        break;
      case 'gone':
      case 'never':
        this.#handles.delete(change.handle.id);
        break;
    }
  }

  #keep(handle: Handle): void {
    this.#handles.delete(handle.id);
    bounded(this.#handles, handle.id, handle);
  }
}

/** The oldest goes where there are enough. */
function bounded<K, V>(map: Map<K, V>, key: K, value: V): void {
  if (map.size >= MOST) map.delete(map.keys().next().value as K);
  map.set(key, value);
}
