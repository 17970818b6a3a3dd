import { setImmediate } from 'node:timers/promises';

/**
 * What is sent to a container's init is meant for its program. Not what the kernel sends for faults of the process itself, nor SIGCHLD.
 * Until somebody listens, most of them end a process, or as an init it never hears of them (pid_namespaces(7)); and by SIGUSR1 Node.js
 * opens its debugger to every local user.
 */
export const forwarded: readonly NodeJS.Signals[] = [
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
];

/** What a daemon without a program of its own has a use for. */
export const served: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGHUP', 'SIGINT', 'SIGTERM'];

const came = new Set<NodeJS.Signals>();
const note = (signal: NodeJS.Signals): void => {
  came.add(signal);
};

/** Bears all of them from now on, and remembers them. */
export function noteSignals(): void {
  for (const signal of forwarded) process.on(signal, note);
}

/** Hands a signal to whoever serves it from now on, with one that came before. */
export function onSignal(signal: NodeJS.Signals, serve: (signal: NodeJS.Signals) => void): void {
  process.on(signal, serve);
  process.off(signal, note);
  if (came.delete(signal)) serve(signal);
}

/** No longer bears those that nobody will serve: they do what they do to any process, and one that came before does so now. */
export async function letGoAllBut(kept: readonly NodeJS.Signals[]): Promise<void> {
  // Listeners are called in the event loop's next turn, of which half may be over.
  await setImmediate();
  await setImmediate();
  for (const signal of forwarded) {
    if (kept.includes(signal)) continue;
    process.off(signal, note);
    if (came.delete(signal)) process.kill(process.pid, signal);
  }
}
