import type { Accepted } from '../../schemas/input.ts';
import type { WindowSize } from '../../schemas/terminal.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import { Problem } from '../errors/problem.ts';
import type { Handles } from '../handles/handles.ts';
import type { ByteSource } from '../input/byte-source.ts';
import type { Input } from '../input/input.ts';
import type { Inputs } from '../input/inputs.ts';
import { type Written, writeInput } from '../input/write-input.ts';
import type { Journal } from '../journal/journal.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Handle } from '../model/process.ts';
import type { Parking, Unparked } from '../waits/parking.ts';
import type { Waits } from '../waits/waitid.ts';
import type { Call, Operation } from './operation.ts';

interface Parts {
  journal: Journal;
  handles: Handles;
  inputs: Inputs;
  parking: Parking;
  waits: Waits;
}

interface Resize extends WindowSize {
  id: string;
}

interface WriteStdin {
  id: string;
  source: ByteSource;
  timeoutMs: number | undefined;
  /** Whether a blocking handle answers as a nonblocking one. */
  dontWait: boolean;
  eof: boolean;
}

function permit({ rights }: Client): void {
  if (!rights.input) throw notAllowed('write to processes');
}

/**
 * Returns the input of a handle's process.
 * @throws {Problem} ENODATA if the spawn has made none, EPIPE if it was closed
 */
export function requireInput(inputs: Inputs, { id, description }: Handle): Input {
  if (description.input === null) {
    const detail =
      'The standard input of this process is neither a pipe nor a terminal: spawn with "stdin": "pipe" or "tty".';
    throw new Problem('ENODATA', detail, { handle: id });
  }
  const input = inputs.of(description);
  if (input === undefined) throw notRead(id);
  return input;
}

/**
 * Sets the size of the terminal of a handle's process.
 * @throws {Problem} ENOTTY if the spawn has made none, EPIPE if it was closed
 */
export async function resize(inputs: Inputs, handle: Handle, { rows, cols }: WindowSize): Promise<void> {
  if (handle.description.input !== 'tty')
    throw new Problem('ENOTTY', 'This process has no terminal: spawn with "tty".', { handle: handle.id });
  try {
    await requireInput(inputs, handle).resize({ rows, cols });
  } catch (error) {
    throw isErrno(error, 'EPIPE') ? notRead(handle.id) : error;
  }
}

/** Makes the problem of a write that no process can read. */
export function notRead(handle: string): Problem {
  const detail = 'This input was closed, or no process reads it any more. Read the handle for its state.';
  return new Problem('EPIPE', detail, { syscall: 'write', handle });
}

/** Writes to the input of processes, and sizes their terminals. */
export class InputOperations {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly write: Operation<WriteStdin, Promise<Accepted | 'aborted'>> = {
    audit: 'input',
    permit,
    run: async (call, { id, source, timeoutMs, dontWait, eof }) => {
      const { handles, inputs, parking } = this.#parts;
      const handle = handles.get(call.client, id, 'input');
      const input = requireInput(inputs, handle);
      using _held = parking.hold(handle);
      using _acting = call.claim?.hold();
      const waits = !dontWait && !handle.description.nonblocking;
      const written = await writeInput<Unparked | Problem>(input, source, {
        waits,
        eof,
        attend: (end) => parking.attend({ timeoutMs: waits ? timeoutMs : undefined, caller: call }, end),
      });
      call.note({ accepted: written.accepted });
      return this.#conclude(call, handle, written, eof);
    },
  };

  readonly resize: Operation<Resize, Promise<void>> = {
    audit: 'resize',
    permit,
    run: ({ client }, { id, ...size }) => {
      const { handles, inputs } = this.#parts;
      return resize(inputs, handles.get(client, id, 'input'), size);
    },
  };

  #conclude(
    { claim }: Call,
    handle: Handle,
    { accepted, lacksEnd, why }: Written<Unparked | Problem>,
    eof: boolean,
  ): Accepted | 'aborted' {
    const { journal, waits } = this.#parts;
    const answer: Accepted = { accepted, ...(lacksEnd && { eof: false }) };
    // As in write(2), what was accepted before an error counts, and the next call meets the error.
    const hasActed = accepted > 0 || (eof && why === 'all');
    if (hasActed && claim !== undefined)
      journal.commit([{ write: 'key', key: claim.keep(handle.id, { status: 200, body: JSON.stringify(answer) }) }]);
    if (why === 'aborted') return 'aborted';
    if (accepted > 0 || why === 'all' || why === 'timed out') return answer;
    if (why === 'full') throw noRoom(handle, waits);
    throw why === 'broken' ? notRead(handle.id) : why;
  }
}

function noRoom(handle: Handle, waits: Waits): Problem {
  const { id } = handle;
  const retry = waits.retry(handle);
  const detail = `The input of handle ${id} takes nothing now: it is full, or another write has its turn. Retry after ${retry.afterMs} ms.`;
  return new Problem('EAGAIN', detail, { syscall: 'write', handle: id, retry });
}
