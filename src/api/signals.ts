import type { WithOutput } from '../../schemas/output.ts';
import type { Signal, Terminate } from '../../schemas/signals.ts';
import type { WaitidResult } from '../../schemas/waits.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import type { Handles } from '../handles/handles.ts';
import type { Signals } from '../signals/signals.ts';
import type { Terminations } from '../signals/terminations.ts';
import { bodyOf } from '../waits/waitid.ts';
import type { Operation } from './operation.ts';
import type { OutputAnswers } from './output-answers.ts';

interface Parts {
  handles: Handles;
  signals: Signals;
  terminations: Terminations;
  outputAnswers: OutputAnswers;
}

function permit({ rights }: Client): void {
  if (!rights.signal) throw notAllowed('send signals');
}

/** Signals, and the orderly end of a process. */
export class SignalOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly signal: Operation<{ id: string } & Signal, Promise<void>> = {
    audit: 'signal',
    acts: true,
    permit,
    run: async (call, { id, signal, scope }) => {
      const { handles, signals } = this.#parts;
      call.note({ signal, scope });
      const handle = handles.get(call.client, id, 'signal');
      if (scope === 'tree') await signals.sendToTree(handle, signal);
      else signals.send(handle, signal, scope);
    },
  };

  readonly terminate: Operation<{ id: string } & Terminate & WithOutput, Promise<WaitidResult | 'aborted'>> = {
    audit: 'terminate',
    acts: true,
    permit,
    run: async (call, { id, graceMs, output }) => {
      const { handles, terminations, outputAnswers } = this.#parts;
      const handle = handles.get(call.client, id, 'signal');
      if ((await terminations.terminate(handle, graceMs, call)) === 'aborted') return 'aborted';
      const result = bodyOf(handle, handle.process.ending!);
      if (output === undefined) return result;
      if (call.claim !== undefined) call.claim.body = JSON.stringify(result);
      const tails = await outputAnswers.ended(call, handle, output);
      return tails === 'aborted' ? 'aborted' : { ...result, output: tails };
    },
  };
}
