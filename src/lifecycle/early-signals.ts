import { setImmediate } from 'node:timers/promises';
import { listenForRealTime, numberOf, realTimeSignals, releaseRealTime } from './real-time-signals.ts';

/** Node's profiler samples by SIGPROF, and its handler of it must stay. */
const isProfiled = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((option) =>
  /--(cpu-prof|prof|inspect)/.test(option),
);

/**
 * What is sent to a container's init is meant for its program. Not what the kernel sends for faults of the process itself, nor for what
 * the daemon writes (SIGPIPE), nor what stops a job at its terminal (SIGTTIN, SIGTTOU), nor SIGCHLD. Until a handler is installed, most of
 * them end a process, or as an init it never hears of them (pid_namespaces(7)); and by SIGUSR1 Node.js opens its debugger to every local
 * user.
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

/** Every signal that a main program is passed, by name. */
export const forwarded: readonly string[] = [...named, ...realTimeSignals];

/** What a daemon without a program of its own has a use for. */
export const served: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGHUP', 'SIGINT', 'SIGTERM'];

/** How many of one real-time signal are kept: they are queued, where other signals are not (signal(7)). */
const MOST_KEPT = 1000;

/** How often each came that nobody has served yet. */
const came = new Map<string, number>();
const listeners = new Map<string, (signal: string) => void>();

const note = (signal: string): void => {
  const most = realTimeSignals.includes(signal) ? MOST_KEPT : 1;
  came.set(signal, Math.min((came.get(signal) ?? 0) + 1, most));
};
const heard = (signal: string): void => (listeners.get(signal) ?? note)(signal);

/** Catches every forwarded signal, and records it until it is served. */
export function catchSignals(): void {
  const begin = (): void => {
    for (const signal of named) process.on(signal, heard);
  };
  listenForRealTime(begin, heard);
}

/** Hands a signal to what serves it from now on, with those that came before. */
export function onSignal<S extends string>(signal: S, serve: (signal: S) => void): void {
  listeners.set(signal, serve as (signal: string) => void);
  const count = came.get(signal) ?? 0;
  came.delete(signal);
  for (let served = 0; served < count; served += 1) serve(signal);
}

/** No longer catches those that will not be served: they do what they do to any process, and one that came before does so now. */
export async function releaseSignalsExcept(kept: readonly NodeJS.Signals[]): Promise<void> {
  // Listeners are called in the event loop's next turn, of which half may be over.
  await setImmediate();
  await setImmediate();
  for (const signal of named) {
    if ((kept as readonly string[]).includes(signal)) continue;
    process.off(signal, heard);
    if (came.delete(signal)) process.kill(process.pid, signal);
  }
  for (const [above, signal] of realTimeSignals.entries()) {
    releaseRealTime(signal);
    if (came.delete(signal)) process.kill(process.pid, numberOf(above));
  }
}
