import { notAllowed } from '../clients/client.ts';
import { isProblemErrno, Problem } from '../errors/problem.ts';
import { errnoName, SystemError } from '../kernel/errno.ts';
import type { Failed } from './launch-program.ts';

const SYSCALL = 'posix_spawn';

/** What is wrong with a file that a request names, and what to do. */
const sentences: Record<string, string> = {
  ENOENT: 'does not exist',
  ENOTDIR: 'is below a path that is not a directory',
  ENOEXEC: 'has a format that this kernel does not execute; a script needs a first line such as #!/bin/sh',
  EACCES: 'may not be used: check its permissions, and those of its directories',
  E2BIG: 'was given more arguments and environment than the kernel takes: pass less, or pass a file',
  ENXIO: 'is a FIFO that has no reader, or a device that does not exist',
};

const resources = new Set(['EAGAIN', 'EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC']);

/** Converts an error of a system call into the problem of a spawn, if it is about a resource. Returns other errors as they are. */
export function explain(error: unknown): unknown {
  if (error instanceof Problem) return error;
  const errno =
    error instanceof SystemError ? error.errno : error instanceof Error && 'code' in error ? String(error.code) : '';
  return resources.has(errno) ? explained(errno, 'The program') : error;
}

/** Makes the problem for a step that failed in the child. */
export function problemOf({ step, errno: number }: Failed): Problem {
  const errno = errnoName(number);
  switch (step.of) {
    case 'limit':
      if (errno === 'EINVAL')
        return new Problem('EINVAL', `limits.${step.resource} is not possible: soft may not be above hard.`);
      return new Problem('EPERM', `The daemon lacks the privilege to raise limits.${step.resource}.`, {
        syscall: 'prlimit',
      });
    case 'nice':
      return new Problem('EPERM', 'The daemon lacks the privilege to lower nice.', { syscall: 'setpriority' });
    case 'user':
      if (resources.has(errno)) return explained(errno, 'The user');
      return new Problem('EPERM', 'The kernel does not let the daemon become this user.', { syscall: 'setuid' });
    case 'noNewPrivileges':
      return new Problem('EOPNOTSUPP', 'This kernel does not support noNewPrivileges: leave it out.', {
        syscall: 'prctl',
      });
    case 'cgroup':
      return resources.has(errno)
        ? explained(errno, 'The cgroup')
        : new Problem('EPERM', 'The daemon may not move the process into its cgroup.', { syscall: 'write' });
    case 'stdout':
    case 'stderr':
      return explained(errno, `The file for ${step.of}`);
    case 'directory':
      if (errno === 'ELOOP' && step.literally) return notAllowed('work in this directory');
      return explained(errno, 'The working directory');
    case 'search':
    case 'program':
    case 'child':
      return explained(errno, 'The program');
  }
}

/**
 * Makes the problem of a spawn for an errno.
 * @param subject what the errno is about, as the beginning of a sentence
 */
export function explained(errno: string, subject: string): Problem {
  if (resources.has(errno) && isProblemErrno(errno))
    return new Problem(errno, 'The machine is out of a resource that a new process needs: try again later.', {
      syscall: SYSCALL,
      status: 503,
      retry: { afterMs: 1000 },
    });
  const detail = `${subject} ${sentences[errno] ?? `cannot be used (${errno})`}.`;
  if (errno === 'EACCES') return new Problem('EACCES', detail, { syscall: SYSCALL, status: 403 });
  if (errno === 'EPERM') return new Problem('EPERM', detail, { syscall: SYSCALL });
  // Any other errno of a file system is about a file that the request named.
  return new Problem(isProblemErrno(errno) ? errno : 'ENOEXEC', detail, {
    syscall: SYSCALL,
    status: errno === 'E2BIG' ? 413 : 422,
  });
}

/** Makes the problem of a program that was not executed in time. */
export function tooSlow(): Problem {
  return new Problem('EAGAIN', 'The program could not be executed in time: try again.', {
    syscall: SYSCALL,
    status: 503,
    retry: { afterMs: 1000 },
  });
}
