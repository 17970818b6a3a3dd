import { setImmediate } from 'node:timers/promises';

/** How long a scan of /proc may block the event loop, in milliseconds. */
export const SLICE_MS = 20;

/**
 * Yields the elements one after another, and gives the event loop a turn whenever the slice is used up.
 * @param sliceMs milliseconds
 */
export async function* inTurns<T>(elements: Iterable<T>, sliceMs = SLICE_MS): AsyncGenerator<T> {
  let began = performance.now();
  for (const element of elements) {
    if (performance.now() - began > sliceMs) {
      await setImmediate();
      began = performance.now();
    }
    yield element;
  }
}
