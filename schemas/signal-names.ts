/** The standard signals of signal(7) in the order of their numbers, from 1. They are the same on x64 and arm64. */
const standard = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGKILL',
  'SIGUSR1',
  'SIGSEGV',
  'SIGUSR2',
  'SIGPIPE',
  'SIGALRM',
  'SIGTERM',
  'SIGSTKFLT',
  'SIGCHLD',
  'SIGCONT',
  'SIGSTOP',
  'SIGTSTP',
  'SIGTTIN',
  'SIGTTOU',
  'SIGURG',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGVTALRM',
  'SIGPROF',
  'SIGWINCH',
  'SIGIO',
  'SIGPWR',
  'SIGSYS',
] as const;

/** The kernel's first real-time signal. The C libraries keep two for themselves and call 34 SIGRTMIN; so do we everywhere. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

const names = new Map<number, string>(standard.map((name, index) => [index + 1, name]));
const numbers = new Map<string, number>([...names].map(([number, name]) => [name, number]));
for (const [alias, name] of [
  ['SIGIOT', 'SIGABRT'],
  ['SIGPOLL', 'SIGIO'],
] as const)
  numbers.set(alias, numbers.get(name)!);

/** `SIGTERM`, `SIGRTMIN+3`; a number between the standard and the real-time ones (32, 33) reads `SIG32`. */
export function signalName(number: number): string {
  if (number >= SIGRTMIN && number <= SIGRTMAX)
    return number === SIGRTMIN ? 'SIGRTMIN' : `SIGRTMIN+${number - SIGRTMIN}`;
  return names.get(number) ?? `SIG${number}`;
}

/**
 * The number of a signal given by name (`SIGTERM`, `SIGRTMIN+3`, `SIGRTMAX-1`) or number (`15`, `"15"`; 0 only probes).
 * @returns `undefined` for what is no signal
 */
export function signalNumber(signal: string | number): number | undefined {
  if (typeof signal === 'number' || /^\d{1,2}$/.test(signal)) {
    const number = Number(signal);
    return Number.isInteger(number) && number >= 0 && number <= SIGRTMAX ? number : undefined;
  }
  const realTime = /^SIGRT(?:MIN(?:\+(\d{1,2}))?|MAX(?:-(\d{1,2}))?)$/.exec(signal);
  if (realTime) {
    const number = signal.startsWith('SIGRTMIN')
      ? SIGRTMIN + Number(realTime[1] ?? 0)
      : SIGRTMAX - Number(realTime[2] ?? 0);
    return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
  }
  return numbers.get(signal);
}
