import type { Readable } from 'node:stream';

/** Bytes for a write, which may still be on their way. */
export interface ByteSource {
  /** How many bytes there are in all; `null` if that is not known yet. */
  readonly length: number | null;
  /** Whether all bytes have been taken. */
  readonly isEnded: boolean;
  /** Takes bytes that have come. @returns `null` if none has */
  take(): Buffer | null;
  /** Subscribes to further bytes and to their end. @returns a function that ends the subscription */
  onMore(listener: () => void): () => void;
}

/** Makes a source of bytes that are all there. */
export function sourceOf(bytes: Buffer): ByteSource {
  let left: Buffer | null = bytes.length === 0 ? null : bytes;
  return {
    length: bytes.length,
    get isEnded() {
      return left === null;
    },
    take: () => {
      const all = left;
      left = null;
      return all;
    },
    onMore: () => () => {},
  };
}

/** Makes a source of a stream. It reads no more than it is asked for, so that the sender waits. */
export function sourceOfStream(stream: Readable, length: number | null): ByteSource {
  return {
    length,
    get isEnded() {
      return stream.readableEnded;
    },
    take: () => stream.read() as Buffer | null,
    onMore: (listener) => {
      stream.on('readable', listener).on('end', listener);
      return () => stream.off('readable', listener).off('end', listener);
    },
  };
}
