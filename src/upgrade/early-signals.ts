/**
 * What ends a process that does not listen for it, or as a container's init never reaches it (pid_namespaces(7)). And SIGUSR1, by which
 * Node.js opens its debugger to every local user, unless somebody listens for it.
 */
const noted: readonly NodeJS.Signals[] = ['SIGUSR1', 'SIGTERM', 'SIGINT', 'SIGHUP'];
const came = new Set<NodeJS.Signals>();
const note = (signal: NodeJS.Signals): void => {
  came.add(signal);
};

/** Bears these signals from now on, and remembers them. */
export function noteSignals(): void {
  for (const signal of noted) process.on(signal, note);
}

/** Hands a signal to whoever serves it from now on, with one that came before. */
export function onSignal(signal: NodeJS.Signals, serve: (signal: NodeJS.Signals) => void): void {
  process.on(signal, serve);
  process.off(signal, note);
  if (came.delete(signal)) serve(signal);
}
