import type { Handle } from '../handles/handle.ts';
import type { Stream } from '../processes/description.ts';
import { notCaptured, OutputFile } from './output-file.ts';
import type { Outputs } from './outputs.ts';

/** A captured stream that is being read: what there is of it, and ways to have it. One of these closes it. */
export interface OutputReading {
  /** The offset of the first byte that is still there. */
  first: number;
  size: number;
  startOfLines(lines: number): Promise<number>;
  range(from: number, to: number): AsyncIterable<Buffer>;
  follow(from: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/**
 * Begins to read what was captured of a handle's process.
 * @param gone fires when the reader goes away
 * @throws {Problem} ENODATA, EMFILE
 */
export async function readOutput(
  outputs: Outputs,
  { description, process }: Handle,
  stream: Stream,
  gone: AbortSignal,
): Promise<OutputReading> {
  if (!description.output.streams.includes(stream)) throw notCaptured();
  const { id } = description;
  const file = await OutputFile.open(outputs.pathOf(id, stream));
  const isOver = (): boolean => gone.aborted || process.ending !== null || !outputs.isOpen(id);
  const change = (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const ends = [outputs.follow(id, stream, resolve), process.watch(resolve)];
    gone.addEventListener('abort', () => resolve(), { once: true });
    return promise.finally(() => {
      for (const end of ends) end();
    });
  };
  const { first, size } = await file.extent();
  return {
    first,
    size,
    startOfLines: (lines) => file.startOfLines(lines),
    range: (from, to) => file.range(from, to),
    follow: (from) => file.follow(from, isOver, change),
    close: () => file.close(),
  };
}
