import type {
  CloseQuery,
  CreateHandle,
  HandleList,
  HandleView,
  ListHandles,
  UpdateHandle,
} from '../../schemas/handles.ts';
import type { WithOutput } from '../../schemas/output.ts';
import type { Usage } from '../../schemas/usage.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import { permittedTimeout } from '../handles/permit-bounds.ts';
import type { Handle } from '../model/process.ts';
import type { UsageReader } from '../processes/usage-reader.ts';
import type { Lifetimes } from '../signals/lifetimes.ts';
import type { Signals } from '../signals/signals.ts';
import { launchRequestOf } from '../spawn/launch-request.ts';
import type { Parking } from '../waits/parking.ts';
import { untilEnded } from '../waits/poll.ts';
import type { Watches } from '../watches/watches.ts';
import type { Call, Operation } from './operation.ts';
import type { OutputAnswers } from './output-answers.ts';

/** PATH_MAX. No program has a longer path, which would only fill the audit. */
const LONGEST_PATH = 4096;

/** The ways to make a handle, of which a body names one. */
const WAYS = ['spawn', 'open', 'dup'] as const;

interface Parts {
  handles: Handles;
  signals: Signals;
  lifetimes: Lifetimes;
  parking: Parking;
  watches: Watches;
  outputAnswers: OutputAnswers;
  usageReader: UsageReader;
}

interface Create {
  body: CreateHandle;
  /** How long to wait for the end of a spawned process before the answer, in milliseconds. */
  waitMs: number | undefined;
  /** The most bytes of each captured stream in the answer. */
  output?: number | undefined;
}

interface Created {
  handle: HandleView;
  /** Whether the answer has waited as the call asked. */
  waited: boolean;
}

/** Checks the right to the way of creation. A dup needs only the right to its handle. */
function permitWay({ rights }: Client, input: unknown): void {
  const way = typeof input === 'object' && input !== null ? WAYS.find((each) => each in input) : undefined;
  if (way === 'spawn' && rights.spawn === false) throw notAllowed('spawn');
  if (way === 'open' && rights.open === 'none') throw notAllowed('open processes');
}

function onlyWithSpawn(): Problem {
  const errors = [{ path: '/output', message: 'only a spawn has output' }];
  return new Problem('EINVAL', 'Only the answer of a spawn has output: leave out the parameter output.', { errors });
}

/** Operations on handles: create (by spawn, open or dup), list, get, update and close. */
export class HandleOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly create: Operation<Create, Promise<Created | 'aborted'>> = {
    audit: WAYS,
    acts: true,
    permit: permitWay,
    run: async (call, { body, waitMs, output }) => {
      const { spawn, open } = body;
      if (output !== undefined && spawn === undefined) throw onlyWithSpawn();
      call.note({ program: spawn?.argv[0].slice(0, LONGEST_PATH), user: spawn?.user, pid: open?.pid });
      const handle = await this.#make(call, body);
      const { pid, lifetime } = handle.process;
      call.note({ handle: handle.id, pid, timeoutMs: lifetime?.timeout?.afterMs, leaseMs: lifetime?.lease?.ttlMs });
      const waits = spawn !== undefined && waitMs !== undefined;
      const begun = performance.now();
      if (waits && (await untilEnded(this.#parts.parking, handle, waitMs, call)) === 'aborted') return 'aborted';
      const view = this.#parts.handles.view(handle);
      if (output === undefined) return { handle: view, waited: waits };
      if (call.claim !== undefined) call.claim.body = JSON.stringify(view);
      const left = waits ? waitMs - (performance.now() - begun) : 0;
      const tails = await this.#parts.outputAnswers.inAnyCase(call, handle, output, left);
      return tails === 'aborted' ? 'aborted' : { handle: { ...view, output: tails }, waited: waits };
    },
  };

  readonly list: Operation<ListHandles, HandleList> = {
    run: ({ client }, { label: labels, cursor: before, ...rest }) => {
      const { handles, next, head } = this.#parts.handles.list(client, { ...rest, labels, before });
      return { handles, next: next === null ? null : `c${next}`, head };
    },
  };

  readonly get: Operation<{ id: string } & WithOutput, HandleView | Promise<HandleView | 'aborted'>> = {
    run: (call, { id, output }) => {
      const handle = this.#parts.handles.get(call.client, id);
      return output === undefined ? this.#parts.handles.view(handle) : this.#viewWithOutput(call, handle, output);
    },
  };

  readonly usage: Operation<string, Promise<Usage>> = {
    run: async ({ client }, id) => {
      const { handles, parking, usageReader } = this.#parts;
      const handle = handles.get(client, id);
      using _held = parking.hold(handle);
      return await usageReader.read(handle);
    },
  };

  readonly update: Operation<{ id: string; body: UpdateHandle }, HandleView> = {
    audit: 'change',
    run: (call, { id, body: { timeout: change, ...changes } }) => {
      const { client } = call;
      const { handles, lifetimes } = this.#parts;
      const handle = handles.get(client, id, 'change');
      if (change === undefined) handles.update(handle, changes);
      else {
        handles.get(client, id, 'signal'); // a timeout ends the process
        call.note({ timeoutMs: change?.afterMs ?? null });
        const timeout = permittedTimeout(client.rights.spawn, lifetimes.changed(handle, change));
        handles.update(handle, changes);
        lifetimes.setTimeout(handle, timeout);
      }
      return handles.view(handle);
    },
  };

  readonly close: Operation<{ id: string } & CloseQuery, void> = {
    audit: 'close',
    run: (call, { id, signal }) => {
      const { client } = call;
      const { handles, signals } = this.#parts;
      call.note({ signal });
      const handle = handles.get(client, id, 'change');
      if (signal !== undefined) signals.sendIfThere(handles.get(client, id, 'signal'), signal);
      handles.close(handle);
    },
  };

  async #viewWithOutput(call: Call, handle: Handle, most: number): Promise<HandleView | 'aborted'> {
    // Before the output, which then has all that came before an end that the view shows.
    const view = this.#parts.handles.view(handle);
    const output = await this.#parts.outputAnswers.now(call, handle, most);
    return output === 'aborted' ? output : { ...view, output };
  }

  async #make({ client, claim }: Call, body: Create['body']): Promise<Handle> {
    const { handles, watches } = this.#parts;
    using _acting = claim?.hold();
    const { spawn, open, dup, nonblocking = false, name = null, labels } = body;
    const options = { nonblocking, name, labels, claim };
    // An earlier call with this claim made it before the daemon died.
    if (claim?.handle != null) return handles.get(client, claim.handle);
    if (spawn) return await handles.spawn(client, launchRequestOf(spawn), options);
    if (open?.match) return await watches.openOne(client, open.match, options);
    if (open) return await handles.open(client, { pid: open.pid!, inode: open.inode ?? undefined }, options);
    return handles.dup(client, dup!, options);
  }
}
