import { bind, checked } from './libc.ts';

const prctl = bind('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
const PR_SET_CHILD_SUBREAPER = 36;

/**
 * Makes this process the parent of its orphaned descendants instead of init (prctl(2), PR_SET_CHILD_SUBREAPER). The setting is
 * preserved across execve(2) and not inherited by fork(2).
 */
export function becomeSubreaper(): void {
  checked('prctl', prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}
