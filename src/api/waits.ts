import type { Retry } from '../../schemas/common.ts';
import type { WaitOption } from '../../schemas/vocabulary.ts';
import type { Poll, PollResult, WaitidResult } from '../../schemas/waits.ts';
import type { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { Parking } from '../waits/parking.ts';
import { poll } from '../waits/poll.ts';
import { bodyOf, requireEvent, type WaitAnswer, type Waits } from '../waits/waitid.ts';
import type { Call, Operation } from './operation.ts';

interface Parts {
  handles: Handles;
  waits: Waits;
  parking: Parking;
}

interface Waitid {
  id: string;
  options: readonly WaitOption[];
  timeoutMs: number | undefined;
  /** Whether a wait without a result is answered with where to ask again, and not with EAGAIN. */
  respondAsync: boolean;
}

/**
 * What a waitid answers: a result, which `timedOut` or `retry` marks as none yet; EAGAIN, which is returned, since an error that is thrown
 * would cost as much as the call.
 */
export type WaitidAnswer = { result: WaitidResult; retry?: Retry } | { again: Problem } | 'aborted';

/** waitid(2) on one handle, and poll(2) over many. */
export class WaitOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly waitid: Operation<Waitid, WaitidAnswer | Promise<WaitidAnswer>> = {
    run: (call, input) => {
      const { handles, waits } = this.#parts;
      const { id, options, timeoutMs, respondAsync } = input;
      requireEvent(options);
      const handle = handles.get(call.client, id, options.includes('WNOWAIT') ? 'see' : 'take');
      const conclude = (answer: WaitAnswer): WaitidAnswer => {
        if (answer === 'aborted') return 'aborted';
        if ((answer === 'timed out' || answer === 'again') && respondAsync) {
          const retry = waits.retry(handle);
          return { result: { ...bodyOf(handle, { outcome: null }), retry }, retry };
        }
        if (answer === 'again') return { again: waits.again(handle) };
        const result = bodyOf(handle, typeof answer === 'string' ? { outcome: null } : answer);
        return { result: answer === 'timed out' ? { ...result, timedOut: true } : result };
      };
      const answer = waits.waitid(handle, { options, timeoutMs, caller: call, claim: call.claim });
      // Most are answered at once, and then a promise would only cost.
      return answer instanceof Promise ? answer.then(conclude) : conclude(answer);
    },
  };

  readonly poll: Operation<Poll, Promise<PollResult | 'aborted'>> = {
    run: (call: Call, { handles: ids, timeoutMs, ...rest }) => {
      const { handles, parking } = this.#parts;
      return poll(parking, {
        ...rest,
        handles: ids.map((id) => handles.get(call.client, id)),
        timeoutMs,
        caller: call,
      });
    },
  };
}
