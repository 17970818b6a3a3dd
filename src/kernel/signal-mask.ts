import { signalNumber } from '../../schemas/signal-names.ts';
import { bind } from './libc.ts';

const sigemptyset = bind('int sigemptyset(void *set)');
const sigaddset = bind('int sigaddset(void *set, int signal)');
const pthreadSigmask = bind('int pthread_sigmask(int how, void *set, void *old)');

const SIG_BLOCK = 0;
const SIG_UNBLOCK = 1;
const SIGSET_SIZE = 128;

/** Holds signals back from this thread: they stay pending until they are unblocked, also over execve(2). */
export function block(signals: readonly string[]): void {
  pthreadSigmask(SIG_BLOCK, setOf(signals), null);
}

/** Lets this thread receive signals, with those that were held back so far. */
export function unblock(signals: readonly string[]): void {
  pthreadSigmask(SIG_UNBLOCK, setOf(signals), null);
}

function setOf(signals: readonly string[]): Buffer {
  const set = Buffer.alloc(SIGSET_SIZE);
  sigemptyset(set);
  for (const signal of signals) sigaddset(set, signalNumber(signal)!);
  return set;
}
