import type { Outcome, Rusage, Siginfo, StopEvent } from '../../schemas/common.ts';
import type { EventFrame } from '../../schemas/events.ts';
import type { Filled } from '../../schemas/filled.ts';
import type { EventType } from '../../schemas/vocabulary.ts';
import type { Handle, Labels } from './process.ts';
import { viewOfProcess } from './views.ts';

/** An event as it is stored. */
export interface StoredEvent {
  seq: number;
  type: EventType;
  handle: string;
  client: string;
  /** Its time on the journal's clock, which retention uses. */
  at: number;
  /** The JSON text of its {@link EventFrame}. */
  frame: string;
}

/** An event as it is written and sent. It is encoded once for all readers. */
export interface Event extends StoredEvent {
  /** Those of the handle when the event was written. */
  labels: Labels;
}

export interface EventFacts {
  outcome?: Outcome | StopEvent | null;
  siginfo?: Siginfo | null;
  rusage?: Rusage | null;
}

/** A moment: `shown` in Unix milliseconds, and `at` on the journal's clock. */
export interface When {
  shown: number;
  at: number;
}

/** Makes an event with its frame. @param facts the end of the process, which every event after it repeats */
export function encode(seq: number, type: EventType, handle: Handle, { shown, at }: When, facts: EventFacts): Event {
  const frame: Filled<EventFrame> = {
    type: 'event',
    seq,
    event: type,
    handle: handle.id,
    name: handle.name,
    labels: handle.labels,
    at: new Date(shown).toISOString(),
    process: viewOfProcess(handle.process),
    outcome: facts.outcome ?? null,
    siginfo: facts.siginfo ?? null,
    rusage: facts.rusage ?? null,
    watch: (type === 'opened' ? handle.watch : null) ?? undefined,
  };
  const { id, client, labels } = handle;
  return { seq, type, handle: id, client, labels, at, frame: JSON.stringify(frame) };
}
