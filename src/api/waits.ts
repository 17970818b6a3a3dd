import type { Retry } from '../../schemas/common.ts';
import type { OutputTails } from '../../schemas/output.ts';
import type { WaitOption } from '../../schemas/vocabulary.ts';
import type { Poll, PollResult, WaitidResult } from '../../schemas/waits.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { Handle } from '../model/process.ts';
import type { Settlements } from '../settlement/settlements.ts';
import type { Parking } from '../waits/parking.ts';
import { poll } from '../waits/poll.ts';
import { bodyOf, requireEvent, type WaitAnswer, type Waits } from '../waits/waitid.ts';
import type { Call, Operation } from './operation.ts';
import type { OutputAnswers } from './output-answers.ts';

interface Parts {
  handles: Handles;
  waits: Waits;
  parking: Parking;
  settlements: Settlements;
  outputAnswers: OutputAnswers;
}

interface Waitid {
  id: string;
  options: readonly WaitOption[];
  timeoutMs: number | undefined;
  /** Whether a wait without an event is answered with a retry hint instead of EAGAIN. */
  respondAsync: boolean;
  /** The most bytes of each captured stream in the answer. */
  output?: number | undefined;
}

/**
 * The answer of a waitid: a result, in which `timedOut` or `retry` says that there is no event yet; or EAGAIN. EAGAIN is returned and not
 * thrown, because an exception costs as much as the call.
 */
export type WaitidAnswer = { result: WaitidResult; retry?: Retry } | { again: Problem } | 'aborted';

function withOutput(answer: WaitidAnswer, output: OutputTails): WaitidAnswer {
  return answer !== 'aborted' && 'result' in answer ? { ...answer, result: { ...answer.result, output } } : answer;
}

/** waitid(2) on one handle, and poll(2) over many. */
export class WaitOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly waitid: Operation<Waitid, WaitidAnswer | Promise<WaitidAnswer>> = {
    run: (call, input) => {
      const { handles, waits } = this.#parts;
      const { id, options, timeoutMs, output } = input;
      requireEvent(options);
      const handle = handles.get(call.client, id, options.includes('WNOWAIT') ? 'see' : 'take');
      if (output !== undefined) return this.#waitWithOutput(call, handle, { ...input, output });
      const answer = waits.waitid(handle, { options, timeoutMs, caller: call, claim: call.claim });
      // Most calls are answered at once. A promise would only slow them down.
      return answer instanceof Promise
        ? answer.then((later) => this.#conclude(handle, later, input))
        : this.#conclude(handle, answer, input);
    },
  };

  #conclude(handle: Handle, answer: WaitAnswer, { respondAsync }: Waitid): WaitidAnswer {
    const { waits } = this.#parts;
    if (answer === 'aborted') return 'aborted';
    if ((answer === 'timed out' || answer === 'again') && respondAsync) {
      const retry = waits.retry(handle);
      return { result: { ...bodyOf(handle, { outcome: null }), retry }, retry };
    }
    if (answer === 'again') return { again: waits.again(handle) };
    const result = bodyOf(handle, typeof answer === 'string' ? { outcome: null } : answer);
    return { result: answer === 'timed out' ? { ...result, timedOut: true } : result };
  }

  /**
   * Waits for an event, then reads the output, and only then collects. So an error or a caller that leaves in between loses no status.
   * If the event is overtaken by another meanwhile, it waits again.
   */
  async #waitWithOutput(call: Call, handle: Handle, input: Waitid & { output: number }): Promise<WaitidAnswer> {
    const { waits, parking, outputAnswers } = this.#parts;
    const { process } = handle;
    const { options, timeoutMs, output } = input;
    using _held = parking.hold(handle);
    const begun = performance.now();
    const left = (): number | undefined =>
      timeoutMs === undefined ? undefined : Math.max(0, timeoutMs - (performance.now() - begun));
    for (;;) {
      const peek = { options: [...options, 'WNOWAIT'] as const, timeoutMs: left(), caller: call };
      const found = await waits.waitid(handle, peek);
      const isEnd = typeof found === 'object' && process.ending !== null;
      const concluded = this.#conclude(handle, found, input);
      if (concluded === 'aborted' || 'again' in concluded) return concluded;
      // Only a call that waits for the end waits for that of the output.
      const waitsForEnd = isEnd && !options.includes('WNOHANG') && !handle.description.nonblocking;
      const tails = await (waitsForEnd
        ? outputAnswers.ended(call, handle, output, left())
        : outputAnswers.now(call, handle, output));
      if (tails === 'aborted') return 'aborted';
      if (typeof found === 'string') return withOutput(concluded, tails);
      parking.requireOpen();
      if (isEnd !== (process.ending !== null)) continue;
      const taken = waits.take(handle, { options, claim: call.claim });
      if (taken !== null) return withOutput(this.#conclude(handle, taken, input), tails);
    }
  }

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
