import { createHook } from 'node:async_hooks';

/** The object of Node.js that has libuv listen for one signal; a handler of libuv's counts each that comes. */
interface SignalWrap {
  onsignal: (number: number) => void;
  unref(): void;
  /** @returns an errno of libuv's, or 0 */
  start(number: number): number;
  close(): void;
}

/** Of signal(7); a C library that keeps one for itself refuses it, and nobody may send that one then. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** Their names, as the contract has them. */
export const realTimeSignals: readonly string[] = Array.from({ length: SIGRTMAX - SIGRTMIN + 1 }, (_, above) =>
  above === 0 ? 'SIGRTMIN' : `SIGRTMIN+${above}`,
);

/** The number of the one that is so many above SIGRTMIN. */
export const numberOf = (above: number): number => SIGRTMIN + above;

const wraps = new Map<string, SignalWrap>();

/**
 * Listens for the real-time signals. `process.on` takes the signals that Node.js names only, and a signalfd only sees what every thread
 * blocks, while Node.js has started its threads before our first line. So this uses what `process.on` uses itself: the wrap of libuv's
 * signal handle, of which async_hooks shows one.
 * @param begin calls `process.on` for a signal that nothing listens for yet
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

/** From now on the signal does what it does to any process. */
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
