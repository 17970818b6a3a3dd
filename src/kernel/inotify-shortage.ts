import { isErrno } from './errno.ts';

/**
 * Explains an error of inotify(7) that means a per-user limit is reached.
 * @returns one sentence with the sysctl to raise, or `null` for any other error
 */
export function inotifyShortage(error: unknown): string | null {
  const raise = (what: string, setting: string): string =>
    `the daemon's user has no inotify ${what} left: raise the sysctl ${setting}`;
  if (isErrno(error, 'EMFILE')) return raise('instance', 'fs.inotify.max_user_instances');
  if (isErrno(error, 'ENOSPC')) return raise('watch', 'fs.inotify.max_user_watches');
  return null;
}
