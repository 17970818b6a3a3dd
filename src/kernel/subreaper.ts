import { bind, checked } from './libc.ts';

const prctl = bind('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
const PR_SET_CHILD_SUBREAPER = 36;

/** Makes orphaned descendants come to this process instead of to init. Not inherited by fork, kept over exec. */
export function becomeSubreaper(): void {
  checked('prctl', prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}
