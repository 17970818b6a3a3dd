import type { Retry } from '../../schemas/common.ts';
import type { WaitOption } from '../../schemas/vocabulary.ts';
import type { Poll, PollResult, WaitidResult } from '../../schemas/waits.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { Settlements } from '../settlement/settlements.ts';
import type { Parking } from '../waits/parking.ts';
import { poll } from '../waits/poll.ts';
import { bodyOf, requireEvent, type WaitAnswer, type Waits } from '../waits/waitid.ts';
import type { Call, Operation } from './operation.ts';

interface Parts {
  handles: Handles;
  waits: Waits;
  parking: Parking;
  settlements: Settlements;
}

interface Waitid {
  id: string;
  options: readonly WaitOption[];
  timeoutMs: number | undefined;
  /** Whether a wait without an event is answered with a retry hint instead of EAGAIN. */
  respondAsync: boolean;
}

/**
 * The answer of a waitid: a result, in which `timedOut` or `retry` says that there is no event yet; or EAGAIN. EAGAIN is returned and not
 * thrown, because an exception costs as much as the call.
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
      // Most calls are answered at once. A promise would only slow them down.
      return answer instanceof Promise ? answer.then(conclude) : conclude(answer);
    },
  };

  readonly poll: Operation<Poll, Promise<PollResult | 'aborted'>> = {
    run: (call: Call, { handles: refs, timeoutMs, ...rest }) => {
      const { parking, settlements } = this.#parts;
      const handles = refs.map((ref) => this.#parts.handles.get(call.client, ref));
      if (new Set(handles.map(({ id }) => id)).size < handles.length)
        throw new Problem('EINVAL', 'Two entries of handles name the same handle: name each once.');
      return poll(parking, { ...rest, settlements, handles, timeoutMs, caller: call });
    },
  };
}
