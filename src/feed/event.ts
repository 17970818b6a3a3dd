import { type Handle, type ProcessView, viewOfProcess } from '../handles/handle.ts';
import type { Rusage, Siginfo } from '../kernel/waitid.ts';
import type { Outcome, Pause } from '../processes/outcome.ts';

export const eventTypes = [
  'opened',
  'adopted',
  'stopped',
  'continued',
  'exited',
  'reaped',
  'output',
  'closed',
  'expired',
] as const;
export type EventType = (typeof eventTypes)[number];

/** An event as it is stored and sent. It is encoded once, however many read it. */
export interface Event {
  seq: number;
  type: EventType;
  handle: string;
  client: string;
  /** On the journal's clock, by which it ages. */
  at: number;
  /** The JSON text of its {@link EventFrame}. */
  frame: string;
}

/** What subscribers get. */
export interface EventFrame {
  type: 'event';
  seq: number;
  event: EventType;
  handle: string;
  at: string;
  process: ProcessView;
  outcome: Outcome | Pause | null;
  siginfo: Siginfo | null;
  rusage: Rusage | null;
  /** Of an `opened`: the watch that did it. */
  watch?: string | undefined;
}

export interface EventFacts {
  outcome?: Outcome | Pause | null;
  siginfo?: Siginfo | null;
  rusage?: Rusage | null;
}

/** When something happened: `shown` in Unix milliseconds, and `at` on the journal's clock. */
export interface When {
  shown: number;
  at: number;
}

/** Makes an event with its frame. `facts` hold what an ended process tells in every event after its end. */
export function encode(seq: number, type: EventType, handle: Handle, { shown, at }: When, facts: EventFacts): Event {
  const frame: EventFrame = {
    type: 'event',
    seq,
    event: type,
    handle: handle.id,
    at: new Date(shown).toISOString(),
    process: viewOfProcess(handle.process),
    outcome: facts.outcome ?? null,
    siginfo: facts.siginfo ?? null,
    rusage: facts.rusage ?? null,
    ...(type === 'opened' && handle.watch !== null && { watch: handle.watch }),
  };
  return { seq, type, handle: handle.id, client: handle.client, at, frame: JSON.stringify(frame) };
}
