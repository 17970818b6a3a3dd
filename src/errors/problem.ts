import type { ProblemDocument, ProcessView, Retry } from '../../schemas/common.ts';
import type { Filled } from '../../schemas/filled.ts';
import { errnos, type ProblemErrno } from '../../schemas/vocabulary.ts';

/** The optional members and headers of a {@link Problem}. */
export interface ProblemFacts {
  /** The HTTP status, if it differs from the errno's usual one. */
  status?: number;
  syscall?: string;
  handle?: string;
  retry?: Retry;
  errors?: { path: string; message: string }[];
  /** The processes that the caller must choose from. */
  candidates?: readonly ProcessView[];
  headers?: Record<string, string>;
}

/** An error to report to a client as `application/problem+json` (RFC 9457). */
export class Problem extends Error {
  readonly errno: ProblemErrno;
  readonly facts: ProblemFacts;

  /**
   * @param errno its table entry gives the title and the usual status
   * @param detail says what is wrong and what to do; must not contain a path of the server or a secret
   */
  constructor(errno: ProblemErrno, detail: string, facts: ProblemFacts = {}) {
    // A problem is a normal answer and needs no stack trace, which cost a sixth of a busy daemon's time.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(detail);
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'Problem';
    this.errno = errno;
    this.facts = facts;
  }

  get status(): number {
    return this.facts.status ?? errnos[this.errno][0];
  }

  /** Returns a copy with additional response headers. */
  with(headers: Record<string, string>): Problem {
    return new Problem(this.errno, this.message, { ...this.facts, headers: { ...this.facts.headers, ...headers } });
  }

  /** The response headers: `Retry-After` and `Link` if the problem has a retry hint, then those of the facts. */
  get headers(): Record<string, string> {
    return { ...(this.facts.retry && retryAfter(this.facts.retry)), ...this.facts.headers };
  }

  /** Builds the problem document. @param instance the request's id */
  toDocument(instance: string): Filled<ProblemDocument> {
    const { syscall, handle, retry, errors, candidates } = this.facts;
    return {
      type: `/problems/${this.errno}`,
      title: errnos[this.errno][1],
      status: this.status,
      detail: this.message,
      instance,
      errno: this.errno,
      // JSON.stringify omits the members that are undefined.
      syscall,
      handle,
      retry,
      errors,
      candidates,
    };
  }
}

/** Reports whether an errno is in the contract's table. */
export function isProblemErrno(errno: string): errno is ProblemErrno {
  return Object.hasOwn(errnos, errno);
}

/**
 * Returns the headers of a retry hint. `Retry-After` has whole seconds, rounded up (RFC 9110 10.2.3); `Link` leads to the events to
 * follow in the meantime (RFC 8288).
 */
export function retryAfter(retry: Retry): Record<string, string> {
  return {
    'retry-after': String(Math.ceil(retry.afterMs / 1000)),
    ...(retry.events !== undefined && { link: `<${retry.events}>; rel="monitor"` }),
  };
}
