import { getSystemErrorMap } from 'node:util';
import { SystemError } from '../kernel/errno.ts';

const meanings = new Map([...getSystemErrorMap().values()]);

/**
 * Describes an error in one sentence for the operator.
 * @returns the path and the meaning of the errno for an error of a system call; the message of any other error
 */
export function sentenceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  const errno = error instanceof SystemError ? error.errno : code;
  const meaning = errno === undefined ? undefined : meanings.get(errno);
  if (meaning === undefined || syscall === undefined) return error.message;
  return `${path ?? syscall}: ${meaning} (${errno})`;
}
