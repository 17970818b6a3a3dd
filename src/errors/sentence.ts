import { getSystemErrorMap } from 'node:util';
import { SystemError } from '../kernel/errno.ts';

const meanings = new Map([...getSystemErrorMap().values()]);

/**
 * Says in one sentence what an error means to the person who started the daemon.
 * @returns for an error of a system call, the path and the meaning of its errno; for any other error, its message
 */
export function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  const errno = error instanceof SystemError ? error.errno : code;
  const meaning = errno === undefined ? undefined : meanings.get(errno);
  if (meaning === undefined || syscall === undefined) return error.message;
  return `${path ?? syscall}: ${meaning} (${errno})`;
}
