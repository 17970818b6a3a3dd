import { bind } from './libc.ts';
import { signalNumber } from './signals.ts';

const sigemptyset = bind('int sigemptyset(void *set)');
const sigaddset = bind('int sigaddset(void *set, int signal)');
const pthreadSigmask = bind('int pthread_sigmask(int how, void *set, void *old)');

const SIG_UNBLOCK = 1;
const SIGSET_SIZE = 128;

/** Lets this thread receive a signal, with one that was held back so far. */
export function unblock(signal: NodeJS.Signals): void {
  const set = Buffer.alloc(SIGSET_SIZE);
  sigemptyset(set);
  sigaddset(set, signalNumber(signal)!);
  pthreadSigmask(SIG_UNBLOCK, set, null);
}
