import type { RenewedLease } from '../../schemas/lifetime.ts';
import type { Client } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { Handle } from '../model/process.ts';
import { timeOf } from '../model/views.ts';
import type { LeaseHolder, Lifetimes } from '../signals/lifetimes.ts';
import type { Operation } from './operation.ts';

interface Parts {
  handles: Handles;
  lifetimes: Lifetimes;
}

/** The leases that one socket may hold. */
const MOST_HELD = 10_000;

/** What became of the handles of a frame. */
export interface Handled {
  /** The ids of those that were held or released. */
  handles: string[];
  /** Why others were not. */
  refused: Problem[];
}

/** Leases: renewed by a call, or held by a socket. */
export class LeaseOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly renew: Operation<string, RenewedLease> = {
    audit: 'lease',
    run: ({ client }, id) => {
      const { handles, lifetimes } = this.#parts;
      return { expiresAt: timeOf(lifetimes.renew(handles.get(client, id, 'change'))) };
    },
  };

  /** Holds leases until they are released, or until {@link end}. */
  hold(client: Client, refs: readonly string[], holder: LeaseHolder): Handled {
    return this.#each(client, refs, (handle) => {
      if (holder.held.size >= MOST_HELD)
        throw new Problem('EDQUOT', `This socket holds ${MOST_HELD} leases already: hold more on another one.`);
      this.#parts.lifetimes.hold(handle, holder);
    });
  }

  /** Releases leases. One that is not held stays as it is. */
  release(client: Client, refs: readonly string[], holder: LeaseHolder): Handled {
    return this.#each(client, refs, ({ process }) => this.#parts.lifetimes.release(holder, process));
  }

  /** Releases all that a socket holds. */
  end(holder: LeaseHolder): void {
    this.#parts.lifetimes.release(holder);
  }

  #each(client: Client, refs: readonly string[], act: (handle: Handle) => void): Handled {
    const handled: Handled = { handles: [], refused: [] };
    for (const ref of new Set(refs))
      try {
        const handle = this.#parts.handles.get(client, ref, 'change');
        act(handle);
        handled.handles.push(handle.id);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        handled.refused.push(error);
      }
    return handled;
  }
}
