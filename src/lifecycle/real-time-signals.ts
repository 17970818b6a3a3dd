import { createHook } from 'node:async_hooks';

/** The internal class of Node.js around a libuv signal handle, which reports every instance of a signal. */
interface SignalWrap {
  onsignal: (number: number) => void;
  unref(): void;
  /** @returns 0, or an errno of libuv */
  start(number: number): number;
  close(): void;
}

/** The range of signal(7). The C library refuses handlers for those that it uses itself. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** The names of the real-time signals in the contract. */
export const realTimeSignals: readonly string[] = Array.from({ length: SIGRTMAX - SIGRTMIN + 1 }, (_, above) =>
  above === 0 ? 'SIGRTMIN' : `SIGRTMIN+${above}`,
);

/** Returns the number of the real-time signal SIGRTMIN+`above`. */
export const numberOf = (above: number): number => SIGRTMIN + above;

const wraps = new Map<string, SignalWrap>();

/**
 * Installs a handler for the real-time signals. `process.on` accepts only the signals that Node.js names. A signalfd receives only what
 * every thread blocks, and Node.js starts its threads before this code runs. So this uses the class inside `process.on`, which
 * async_hooks reveals.
 * @param begin calls `process.on` for a signal that has no handler yet
 */
export function listenForRealTime(begin: () => void, listener: (signal: string) => void): void {
  const Wrap = wrapMadeBy(begin);
  if (Wrap === null) return;
  for (const [above, signal] of realTimeSignals.entries()) {
    const wrap = new Wrap();
    wrap.unref();
    wrap.onsignal = () => listener(signal);
    if (wrap.start(numberOf(above)) === 0) wraps.set(signal, wrap);
    else wrap.close();
  }
}

/** Restores the default disposition of a signal. */
export function releaseRealTime(signal: string): void {
  wraps.get(signal)?.close();
  wraps.delete(signal);
}

function wrapMadeBy(begin: () => void): (new () => SignalWrap) | null {
  let found: (new () => SignalWrap) | null = null;
  const hook = createHook({
    init(_id, type, _trigger, resource) {
      if (type === 'SIGNALWRAP') found = resource.constructor as new () => SignalWrap;
    },
  });
  hook.enable();
  begin();
  hook.disable();
  return found;
}
