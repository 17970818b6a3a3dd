import { signalNumber } from '../../schemas/signal-names.ts';
import { bind } from './libc.ts';

const sigemptyset = bind('int sigemptyset(void *set)');
const sigaddset = bind('int sigaddset(void *set, int signal)');
const pthreadSigmask = bind('int pthread_sigmask(int how, void *set, void *old)');

const SIG_BLOCK = 0;
const SIG_UNBLOCK = 1;
const SIGSET_SIZE = 128;

/** Blocks signals in this thread. They stay pending until {@link unblock}, even across execve(2) (signal(7)). */
export function block(signals: readonly string[]): void {
  pthreadSigmask(SIG_BLOCK, setOf(signals), null);
}

/** Unblocks signals in this thread, which also delivers those that are pending. */
export function unblock(signals: readonly string[]): void {
  pthreadSigmask(SIG_UNBLOCK, setOf(signals), null);
}

function setOf(signals: readonly string[]): Buffer {
  const set = Buffer.alloc(SIGSET_SIZE);
  sigemptyset(set);
  for (const signal of signals) sigaddset(set, signalNumber(signal)!);
  return set;
}
