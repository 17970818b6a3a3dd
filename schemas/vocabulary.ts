/** The words of the contract that need no schema, and nothing to import. */

/**
 * Every errno that leaves the daemon: the HTTP status that carries it, and a title that never changes. The errno is API; the `detail` of a
 * problem is not.
 */
export const errnos = {
  E2BIG: [413, 'Too large'],
  EACCES: [401, 'Not authenticated, or not executable'],
  EAGAIN: [409, 'Nothing to report yet'],
  EBADF: [404, 'No such handle'],
  ECHILD: [410, 'No child to wait for'],
  EDQUOT: [429, 'Quota exceeded'],
  EEXIST: [409, 'Name in use'],
  EINVAL: [400, 'Invalid argument'],
  EIO: [500, 'Internal fault'],
  EISDIR: [422, 'Is a directory'],
  ELOOP: [422, 'Too many symbolic links'],
  EMFILE: [503, 'Too many open files'],
  ENAMETOOLONG: [422, 'File name too long'],
  ENFILE: [503, 'Too many open files in the system'],
  ENODATA: [404, 'Not captured, or no input'],
  ENOENT: [422, 'No such file or directory'],
  ENOEXEC: [422, 'Not an executable format'],
  ENOMEM: [503, 'Out of memory'],
  ENOSPC: [503, 'No space left on device'],
  ENOSYS: [501, 'Not offered by this kernel'],
  ENOTUNIQ: [409, 'Several processes match'],
  ENOTDIR: [422, 'Not a directory'],
  ENXIO: [422, 'No such device, or a FIFO without a reader'],
  ENOTTY: [422, 'Not a terminal'],
  EOPNOTSUPP: [501, 'Not supported by this kernel'],
  EPERM: [403, 'Not permitted'],
  EPIPE: [410, 'Nobody reads the input'],
  EPROTO: [400, 'HTTP protocol error'],
  EROFS: [422, 'Read-only file system'],
  ESHUTDOWN: [503, 'Shutting down'],
  ESRCH: [404, 'No such process'],
  ESTALE: [410, 'Handle is gone'],
  ETIMEDOUT: [504, 'Did not end'],
  ETXTBSY: [422, 'Text file busy'],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemErrno = keyof typeof errnos;
export const problemErrnos = Object.keys(errnos) as [ProblemErrno, ...ProblemErrno[]];

/** What happens to a handle. */
export const eventTypes = [
  'opened',
  'adopted',
  'stopped',
  'continued',
  'exited',
  'reaped',
  'settled',
  'output',
  'closed',
  'expired',
] as const;
export type EventType = (typeof eventTypes)[number];

/** The options of waitid(2) that a request may name. */
export const waitOptions = ['WEXITED', 'WSTOPPED', 'WCONTINUED', 'WNOHANG', 'WNOWAIT'] as const;
export type WaitOption = (typeof waitOptions)[number];

/** The resources of setrlimit(2), in the order of the kernel's RLIMIT_ numbers. */
export const resources = [
  'cpu',
  'fsize',
  'data',
  'stack',
  'core',
  'rss',
  'nproc',
  'nofile',
  'memlock',
  'as',
  'locks',
  'sigpending',
  'msgqueue',
  'nice',
  'rtprio',
  'rttime',
] as const;
export type Resource = (typeof resources)[number];

/** The time between SIGTERM and SIGKILL where a request gives none, in milliseconds. */
export const GRACE_MS = 5000;

/** The most labels of a handle. */
export const MOST_LABELS = 64;
