import { constants, fstatSync, openSync } from 'node:fs';
import { Descriptor } from '../kernel/descriptor.ts';
import { isErrno } from '../kernel/errno.ts';
import { firstData } from '../kernel/file.ts';
import type { Stream } from '../model/process.ts';

/** Returns the name of the file that keeps a stream. */
export function fileOf(id: number, stream: Stream): string {
  return `${id}.${stream}`;
}

/** Returns the description and the stream of a file by its name; `null` for any other file. */
export function parseFile(name: string): { id: number; stream: Stream } | null {
  const [, id, stream] = /^(\d+)\.(stdout|stderr)$/.exec(name) ?? [];
  return stream === undefined ? null : { id: Number(id), stream: stream as Stream };
}

/** Returns what a file holds: nothing if it does not exist. */
export function extentOf(path: string): { size: number; first: number } {
  try {
    using file = new Descriptor(openSync(path, constants.O_RDONLY));
    const { size } = fstatSync(file.fd);
    return { size, first: Math.min(firstData(file.fd) ?? size, size) };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return { size: 0, first: 0 };
    throw error;
  }
}
