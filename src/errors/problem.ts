/**
 * Every errno that leaves the daemon: the HTTP status it travels under, and a title that never changes. The errno is
 * API; the `detail` of a problem is not.
 */
const table = {
  E2BIG: [413, 'Too large'],
  EACCES: [401, 'Not authenticated, or not executable'],
  EAGAIN: [409, 'Nothing to report yet'],
  EBADF: [404, 'No such handle'],
  ECHILD: [410, 'No child to wait for'],
  EDQUOT: [429, 'Quota exceeded'],
  EINVAL: [400, 'Invalid argument'],
  EIO: [500, 'Internal fault'],
  EISDIR: [422, 'Is a directory'],
  ELOOP: [422, 'Too many symbolic links'],
  EMFILE: [503, 'Too many open files'],
  ENAMETOOLONG: [422, 'File name too long'],
  ENFILE: [503, 'Too many open files in the system'],
  ENODATA: [404, 'Not captured'],
  ENOENT: [422, 'No such file or directory'],
  ENOEXEC: [422, 'Not an executable format'],
  ENOMEM: [503, 'Out of memory'],
  ENOSPC: [503, 'No space left on device'],
  ENOSYS: [501, 'Not offered by this kernel'],
  ENOTUNIQ: [409, 'Several processes match'],
  ENOTDIR: [422, 'Not a directory'],
  ENXIO: [422, 'No such device, or a FIFO without a reader'],
  EOPNOTSUPP: [501, 'Not supported by this kernel'],
  EPERM: [403, 'Not permitted'],
  EPROTO: [400, 'HTTP protocol error'],
  EROFS: [422, 'Read-only file system'],
  ESHUTDOWN: [503, 'Shutting down'],
  ESRCH: [404, 'No such process'],
  ESTALE: [410, 'Handle is gone'],
  ETIMEDOUT: [504, 'Did not end'],
  ETXTBSY: [422, 'Text file busy'],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemErrno = keyof typeof table;
export const problemErrnos = Object.keys(table) as [ProblemErrno, ...ProblemErrno[]];

/** When to try again, and where to be told instead. */
export interface Retry {
  afterMs: number;
  events?: string;
}

export interface ProblemFacts {
  /** Where it is not the errno's usual one. */
  status?: number;
  syscall?: string;
  handle?: string;
  retry?: Retry;
  errors?: { path: string; message: string }[];
  /** Processes among which the caller is to choose. */
  candidates?: {
    pid: number;
    inode: string | null;
    startedAt: string;
    argv: readonly string[];
    argvTruncated?: true;
  }[];
  headers?: Record<string, string>;
}

/** An error that a client is told: what `application/problem+json` (RFC 9457) is made of. */
export class Problem extends Error {
  readonly errno: ProblemErrno;
  readonly facts: ProblemFacts;

  /** @param detail one sentence that says what to do; no path of the server, no secret */
  constructor(errno: ProblemErrno, detail: string, facts: ProblemFacts = {}) {
    // An answer, not a fault: its stack says nothing, and taking it cost a sixth of a busy daemon's time.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(detail);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'Problem';
    this.errno = errno;
    this.facts = facts;
  }

  get status(): number {
    return this.facts.status ?? table[this.errno][0];
  }

  /** The same with more response headers. */
  with(headers: Record<string, string>): Problem {
    return new Problem(this.errno, this.message, { ...this.facts, headers: { ...this.facts.headers, ...headers } });
  }

  /** Response headers: `Retry-After`, and what else the facts hold. */
  get headers(): Record<string, string> {
    return { ...(this.facts.retry && retryAfter(this.facts.retry)), ...this.facts.headers };
  }

  /** @param instance the request's id */
  toDocument(instance: string): ProblemDocument {
    const { syscall, handle, retry, errors, candidates } = this.facts;
    return {
      type: `/problems/${this.errno}`,
      title: table[this.errno][1],
      status: this.status,
      detail: this.message,
      instance,
      errno: this.errno,
      // What is undefined is not in the JSON.
      syscall,
      handle,
      retry,
      errors,
      candidates,
    };
  }
}

type Optional = Pick<ProblemFacts, 'syscall' | 'handle' | 'retry' | 'errors' | 'candidates'>;

export interface ProblemDocument extends Record<keyof Optional, unknown> {
  type: string;
  title: string;
  status: number;
  detail: string;
  instance: string;
  errno: ProblemErrno;
}

export function isProblemErrno(errno: string): errno is ProblemErrno {
  return Object.hasOwn(table, errno);
}

/** `Retry-After` is whole seconds (RFC 9110 10.2.3), rounded up. And the events to watch meanwhile, RFC 8288. */
export function retryAfter(retry: Retry): Record<string, string> {
  return {
    'retry-after': String(Math.ceil(retry.afterMs / 1000)),
    ...(retry.events !== undefined && { link: `<${retry.events}>; rel="monitor"` }),
  };
}
