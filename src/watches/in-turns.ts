import { setImmediate } from 'node:timers/promises';

/** How long a look through /proc may hold up everybody else at a time. */
export const SLICE_MS = 20;

/** Gives the elements one after another, and the event loop a turn whenever those so far took too long. */
export async function* inTurns<T>(elements: Iterable<T>): AsyncGenerator<T> {
  let began = performance.now();
  for (const element of elements) {
    if (performance.now() - began > SLICE_MS) {
      await setImmediate();
      began = performance.now();
    }
    yield element;
  }
}
