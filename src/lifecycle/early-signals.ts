import { setImmediate } from 'node:timers/promises';
import { listenForRealTime, numberOf, realTimeSignals, releaseRealTime } from './real-time-signals.ts';

/** Node.js's profiler uses SIGPROF, so its handler must stay installed. */
const isProfiled = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((option) =>
  /--(cpu-prof|prof|inspect)/.test(option),
);

/**
 * The standard signals that an init forwards to its program. Not among them: signals for faults of the process itself, SIGPIPE, SIGCHLD,
 * and those of job control (SIGTTIN, SIGTTOU). Without a handler most of them end the process, or are discarded if it is the init of
 * its pid namespace (pid_namespaces(7)). SIGUSR1 makes Node.js open its inspector to every local user.
 */
const named: readonly NodeJS.Signals[] = [
  'SIGUSR1',
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGUSR2',
  'SIGALRM',
  'SIGTSTP',
  'SIGCONT',
  'SIGWINCH',
  'SIGURG',
  'SIGIO',
  'SIGPWR',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGVTALRM',
  ...(isProfiled ? [] : (['SIGPROF'] as const)),
  'SIGSTKFLT',
];

/** Every signal that is forwarded to a main program, by name. */
export const forwarded: readonly string[] = [...named, ...realTimeSignals];

/** The signals that a daemon without a main program handles. */
export const served: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGHUP', 'SIGINT', 'SIGTERM'];

/** The number of instances recorded of one real-time signal. Real-time signals are queued, and standard signals are not (signal(7)). */
const MOST_PENDING = 1000;

/** The number of recorded instances of each signal without a handler. */
const pending = new Map<string, number>();
const handlers = new Map<string, (signal: string) => void>();

const record = (signal: string): void => {
  const most = realTimeSignals.includes(signal) ? MOST_PENDING : 1;
  pending.set(signal, Math.min((pending.get(signal) ?? 0) + 1, most));
};
const dispatch = (signal: string): void => (handlers.get(signal) ?? record)(signal);

/** Catches every forwarded signal, and records it until {@link onSignal} installs a handler. */
export function catchSignals(): void {
  const begin = (): void => {
    for (const signal of named) process.on(signal, dispatch);
  };
  listenForRealTime(begin, dispatch);
}

/** Installs the handler of a signal, and calls it for each recorded instance. */
export function onSignal<S extends string>(signal: S, handler: (signal: S) => void): void {
  handlers.set(signal, handler as (signal: string) => void);
  const count = pending.get(signal) ?? 0;
  pending.delete(signal);
  for (let called = 0; called < count; called += 1) handler(signal);
}

/** Restores the default disposition of all other signals, and raises those that are recorded again. */
export async function releaseSignalsExcept(kept: readonly NodeJS.Signals[]): Promise<void> {
  // Node.js calls handlers in the next turn of the event loop. Two turns cover a signal that arrived in the current one.
  await setImmediate();
  await setImmediate();
  for (const signal of named) {
    if ((kept as readonly string[]).includes(signal)) continue;
    process.off(signal, dispatch);
    if (pending.delete(signal)) process.kill(process.pid, signal);
  }
  for (const [above, signal] of realTimeSignals.entries()) {
    releaseRealTime(signal);
    if (pending.delete(signal)) process.kill(process.pid, numberOf(above));
  }
}
