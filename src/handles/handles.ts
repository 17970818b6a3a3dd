import type { HandleView } from '../../schemas/handles.ts';
import { MOST_LABELS } from '../../schemas/vocabulary.ts';
import type { Client } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import { Batch } from '../journal/batch.ts';
import { changesOfHandle } from '../journal/change.ts';
import type { EndedBy, Handle, Labels, OpenDescription } from '../model/process.ts';
import type { Adoption } from '../processes/adoption.ts';
import type { Settlements } from '../settlement/settlements.ts';
import type { LaunchRequest } from '../spawn/launch-request.ts';
import { Admission } from './admission.ts';
import { DescriptorPressure } from './descriptor-pressure.ts';
import { type HandlePage, HandleTable, type ListQuery, type Purpose } from './handle-table.ts';
import type { OpenOptions } from './open-options.ts';
import { Opener, type OpenTarget } from './opener.ts';
import { Spawner, type SpawnerParts } from './spawner.ts';

export interface HandlesParts extends Omit<SpawnerParts, 'handles' | 'admission' | 'pressure' | 'launch'> {
  adoption: Adoption;
  settlements: Settlements;
}

/** What is to change of a handle. What is left out stays as it is. */
export interface HandleChanges {
  nonblocking?: boolean | undefined;
  name?: string | null | undefined;
  labels?: Record<string, string | null> | undefined;
}

/** Makes handles by spawn, open and dup, changes them, and ends them. */
export class Handles {
  readonly #parts: HandlesParts;
  readonly #handles: HandleTable;
  readonly #spawner: Spawner;
  readonly #opener: Opener;

  constructor(parts: HandlesParts) {
    const { journal, table, reaper, cgroups } = parts;
    this.#parts = parts;
    const handles = new HandleTable(journal);
    this.#handles = handles;
    const admission = new Admission(journal, handles);
    const pressure = new DescriptorPressure([parts.settlements, table.groups]);
    const shared = { ...parts, handles, admission, pressure };
    this.#spawner = new Spawner(shared);
    this.#opener = new Opener({ ...shared, spawner: this.#spawner, close: (handle) => this.close(handle) });
    journal.addSource(() => handles.values().flatMap(changesOfHandle));
    reaper.onRetired((process) => {
      for (const handle of process.handles) {
        handles.remove(handle);
        cgroups.release(handle.description.id);
      }
    });
  }

  /** How many handles are on live processes. */
  get size(): number {
    return this.#handles.size;
  }

  /** Subscribes to changes of {@link size}. @returns a function that ends the subscription */
  onCount(listener: () => void): () => void {
    return this.#handles.onCount(listener);
  }

  /** As {@link Spawner.onBegun}. */
  onBegun(listener: (pid: number) => void): () => void {
    return this.#spawner.onBegun(listener);
  }

  /** As {@link HandleTable.get}. */
  get(client: Client, id: string, purpose?: Purpose): Handle {
    return this.#handles.get(client, id, purpose);
  }

  /** As {@link Names.resolve}. */
  resolve(client: Client, ref: string): string {
    return this.#handles.names.resolve(client.name, ref);
  }

  /** As {@link HandleTable.beginningOf}. */
  beginningOf(client: Client, id: string): number | null {
    return this.#handles.beginningOf(client, id);
  }

  /** As {@link HandleTable.list}. */
  list(client: Client, query: ListQuery): HandlePage {
    return this.#handles.list(client, query);
  }

  /** As {@link HandleTable.view}. */
  view(handle: Handle): HandleView {
    return this.#handles.view(handle);
  }

  /** As {@link Spawner.spawn}. */
  spawn(client: Client, wanted: LaunchRequest, options: OpenOptions): Promise<Handle> {
    return this.#spawner.spawn(client, wanted, options);
  }

  /** As {@link Spawner.drain}. */
  drainSpawns(problem: Problem): Promise<void> {
    return this.#spawner.drain(problem);
  }

  /** As {@link Opener.open}. */
  open(client: Client, target: OpenTarget, options: OpenOptions): Promise<Handle> {
    return this.#opener.open(client, target, options);
  }

  /** As {@link Opener.openNow}. */
  openNow(client: Client, target: OpenTarget, options: OpenOptions): Handle {
    return this.#opener.openNow(client, target, options);
  }

  /** As {@link Opener.dup}. */
  dup(client: Client, id: string, options: Omit<OpenOptions, 'nonblocking'>): Handle {
    return this.#opener.dup(client, id, options);
  }

  /**
   * Changes the flag, the name and the labels of a handle; `null` removes a name or a label.
   * @throws {Problem} EINVAL for too many labels, EEXIST for a name in use; nothing is changed then
   */
  update(handle: Handle, { nonblocking, name, labels }: HandleChanges): void {
    const { journal } = this.#parts;
    const { names } = this.#handles;
    if (name !== undefined) names.require(handle.client, name, handle.id);
    const merged = Object.entries({ ...handle.labels, ...labels }).filter(([, value]) => value !== null);
    if (merged.length > MOST_LABELS)
      throw new Problem('EINVAL', `A handle has at most ${MOST_LABELS} labels: remove some by null.`, {
        handle: handle.id,
      });
    if (nonblocking !== undefined) {
      handle.description.nonblocking = nonblocking;
      journal.commit([{ write: 'description', description: handle.description }]);
    }
    if (labels === undefined && name === undefined) return;
    handle.labels = Object.fromEntries(merged) as Labels;
    if (name !== undefined) {
      names.remove(handle);
      handle.name = name;
      names.add(handle);
    }
    journal.commit([{ write: 'handle', handle }]);
  }

  /** Closes a handle. The process lives on, and so does a wait that is parked on it. */
  close(handle: Handle): void {
    this.#end([handle], 'closed');
  }

  /** Expires handles. */
  expire(handles: readonly Handle[]): void {
    // A handle may still be live here: the parent of a foreign process may never reap it.
    this.#end(
      handles.map((handle) => this.#handles.current(handle)),
      'expired',
    );
  }

  #end(handles: readonly Handle[], endedBy: EndedBy): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    for (const handle of handles) {
      batch.event(endedBy, handle, handle.process.ending ?? {});
      batch.write({ write: 'tombstone', handle, endedBy, last: journal.head });
    }
    batch.commit(feed, () => {
      for (const handle of handles) this.#release(handle);
    });
  }

  #release(handle: Handle): void {
    const { table, adoption, settlements, outputs, inputs, cgroups } = this.#parts;
    const { description, process } = handle;
    const hasStreams = description.input !== null || description.output.streams.length > 0;
    if (hasStreams && this.#handles.handlesOn(description).length === 0) {
      inputs.release(description);
      outputs.release(description);
    }
    if (!this.#handles.remove(handle)) {
      table.groups.count(process, -1);
      settlements.closed(process);
      return;
    }
    process.detach(handle);
    if (process.handles.size === 0) {
      adoption.forget(process);
      cgroups.release(description.id);
    }
    table.release(description);
  }

  /** Records that the captured output of a description has reached its end, and sends `output`. */
  endOutput(description: OpenDescription): void {
    const { journal, feed } = this.#parts;
    const batch = new Batch(journal);
    description.output.ended = true;
    batch.write({ write: 'output', description });
    for (const handle of this.#handles.handlesOn(description))
      batch.event('output', handle, handle.process.ending ?? {});
    batch.commit(feed);
  }

  /** Goes on with the cgroups of live processes, and removes those that an earlier daemon left. */
  resumeCgroups(): void {
    const { cgroups } = this.#parts;
    const live = [...this.#handles.values()];
    for (const { description, process } of live)
      if (process.ending === null) cgroups.follow(description.id, process.pid);
    cgroups.releaseAllBut(new Set(live.map(({ description }) => description.id)));
  }

  /** Goes on with captured output whose end an earlier daemon had not reported, and removes output without a handle. */
  resumeOutput(): void {
    const { journal, outputs } = this.#parts;
    const owners = journal.queries.outputs();
    const capturing = journal.queries.capturing().map((handle) => this.#handles.current(handle).description);
    outputs.sweep(owners);
    for (const description of new Map(capturing.map((each) => [each.id, each])).values())
      outputs.track(description, owners.get(description.id)!);
  }

  /** Returns a handle on a description with an input, by the journal's number for it. */
  withInput(id: number): Handle | undefined {
    const [first] = this.#parts.journal.queries.withInput(id);
    return first && this.#handles.current(first.handle);
  }

  /** Takes over a handle that an earlier daemon left on a process that still lives. */
  restore(handle: Handle): void {
    this.#handles.add(handle);
  }
}
