import type { ProblemDocument, ProcessView, Retry } from '../../schemas/common.ts';
import type { Filled } from '../../schemas/filled.ts';
import { errnos, type ProblemErrno } from '../../schemas/vocabulary.ts';

export interface ProblemFacts {
  /** Where it is not the errno's usual one. */
  status?: number;
  syscall?: string;
  handle?: string;
  retry?: Retry;
  errors?: { path: string; message: string }[];
  /** Processes among which the caller is to choose. */
  candidates?: readonly ProcessView[];
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
    return this.facts.status ?? errnos[this.errno][0];
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
  toDocument(instance: string): Filled<ProblemDocument> {
    const { syscall, handle, retry, errors, candidates } = this.facts;
    return {
      type: `/problems/${this.errno}`,
      title: errnos[this.errno][1],
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

export function isProblemErrno(errno: string): errno is ProblemErrno {
  return Object.hasOwn(errnos, errno);
}

/** `Retry-After` is whole seconds (RFC 9110 10.2.3), rounded up. And the events to watch meanwhile, RFC 8288. */
export function retryAfter(retry: Retry): Record<string, string> {
  return {
    'retry-after': String(Math.ceil(retry.afterMs / 1000)),
    ...(retry.events !== undefined && { link: `<${retry.events}>; rel="monitor"` }),
  };
}
