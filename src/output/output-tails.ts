import type { Filled } from '../../schemas/filled.ts';
import type { OutputTails, StreamTail } from '../../schemas/output.ts';
import { Problem } from '../errors/problem.ts';
import type { OpenDescription, Stream } from '../model/process.ts';
import { inTime } from './in-time.ts';
import { OutputFile } from './output-file.ts';
import type { Outputs } from './outputs.ts';
import { decodeTail, LONGEST_REST } from './utf8-tail.ts';

export interface TailRequest {
  /** The most bytes of each stream. */
  most: number;
  /** How long to wait for bytes that are still in a pipe, in milliseconds: a disk may take none. */
  flushMs: number;
}

/** The answer for output that cannot be read. */
export const noTails: Filled<OutputTails> = { stdout: null, stderr: null, complete: false };

/**
 * Reads the end of each captured stream of a description.
 * @throws {Problem} EMFILE
 */
export async function readTails(
  outputs: Outputs,
  description: OpenDescription,
  { most, flushMs }: TailRequest,
): Promise<Filled<OutputTails>> {
  const { id, output } = description;
  if (!outputs.hasEnded(description) && flushMs > 0) {
    const flushed = output.streams.map((stream) => outputs.flush(id, stream));
    await inTime(Promise.all(flushed), flushMs);
  }
  // Before the sizes, so that nothing can follow what is read.
  const complete = outputs.hasEnded(description);
  const tailOf = async (stream: Stream): Promise<StreamTail | null> =>
    output.streams.includes(stream) ? readTail(outputs, id, stream, most) : null;
  const tails = { stdout: await tailOf('stdout'), stderr: await tailOf('stderr') };
  return { ...tails, complete: complete && output.streams.every((stream) => tails[stream] !== null) };
}

/** @returns `null` if its last handle is closed, or the file was removed */
async function readTail(
  outputs: Outputs,
  id: number,
  stream: Stream,
  most: number,
): Promise<Filled<StreamTail> | null> {
  const live = outputs.streamOf(id, stream);
  const isOpen = live?.open ?? false;
  let file: OutputFile;
  try {
    file = await OutputFile.open(outputs.pathOf(id, stream), live);
  } catch (error) {
    if (error instanceof Problem && error.errno === 'ENODATA') return null;
    throw error;
  }
  try {
    const { first, size } = file.extent;
    const wanted = Math.max(first, size - most);
    const { bytes, from } = await file.bytes(Math.max(first, wanted - LONGEST_REST), size);
    const begin = Math.max(0, wanted - from);
    const tail = decodeTail(bytes, begin, from > 0, isOpen);
    const offset = from + (tail?.from ?? begin);
    return {
      text: tail?.text,
      base64: tail === null ? bytes.toString('base64', begin) : undefined,
      offset,
      size,
      truncated: offset > 0,
    };
  } finally {
    await file.close();
  }
}
