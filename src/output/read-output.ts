import type { Readable } from 'node:stream';
import type { Handle, Stream } from '../model/process.ts';
import { notCaptured, OutputFile, type Watch } from './output-file.ts';
import type { Outputs } from './outputs.ts';

/** A captured stream that is being read. `range`, `follow` and `close` each close the file in the end. */
export interface OutputReading {
  /** The offset of the first byte that is kept. */
  first: number;
  size: number;
  startOfLines(lines: number): Promise<number>;
  range(from: number, to: number): Readable;
  follow(from: number): Readable;
  close(): Promise<void>;
}

/**
 * Begins to read the captured output of a handle's process: everything that it wrote before this call.
 * @param abortSignal aborted when the reader disconnects
 * @throws {Problem} ENODATA, EMFILE
 */
export async function readOutput(
  outputs: Outputs,
  { description, process }: Handle,
  stream: Stream,
  abortSignal: AbortSignal,
): Promise<OutputReading> {
  if (!description.output.streams.includes(stream)) throw notCaptured();
  const { id } = description;
  const live = outputs.streamOf(id, stream);
  await outputs.flush(id, stream);
  const file = await OutputFile.open(outputs.pathOf(id, stream), live);
  const isDiscarded = (): boolean => live?.isDiscarded ?? false;
  const isOver = (): boolean =>
    abortSignal.aborted || process.ending !== null || isDiscarded() || !outputs.isOpen(id, stream);
  const isCut = (): boolean => isDiscarded() || (process.ending === null && (live?.open ?? false));
  const watch = (): Watch => {
    const { promise: happened, resolve } = Promise.withResolvers<void>();
    const onAbort = (): void => resolve();
    const ends = [outputs.follow(id, stream, resolve), process.watch(resolve)];
    abortSignal.addEventListener('abort', onAbort);
    return {
      happened,
      [Symbol.dispose]: () => {
        for (const end of ends) end();
        abortSignal.removeEventListener('abort', onAbort);
      },
    };
  };
  const { first, size } = file.extent;
  return {
    first,
    size,
    startOfLines: (lines) => file.startOfLines(lines),
    range: (from, to) => file.range(from, to),
    follow: (from) => file.follow(from, { isOver, isCut, watch, flush: () => outputs.flush(id, stream) }),
    close: () => file.close(),
  };
}
