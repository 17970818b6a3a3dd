import type { EventType } from '../../schemas/vocabulary.ts';
import type { Event } from './event.ts';

/** A name and a value that a reader asks for. */
export type LabelFilter = readonly [key: string, value: string];

/** Which of the events that a reader may see it asks for. */
export interface EventFilter {
  /** All types where it is missing. */
  types?: readonly EventType[];
  /** All of them must fit. */
  labels?: readonly LabelFilter[];
}

/** Whether a filter leaves an event in, by the labels that the event was written with. */
export function fits({ type, labels }: Event, filter: EventFilter): boolean {
  if (filter.types?.includes(type) === false) return false;
  return filter.labels?.every(([key, value]) => labels[key] === value) ?? true;
}
