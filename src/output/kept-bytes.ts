import type { Client } from '../clients/client.ts';
import { Reservation, requireQuota } from '../clients/quotas.ts';
import type { Stream } from '../model/process.ts';
import { fileOf } from './output-files.ts';

/** The unit in which disks allocate. A stream that may still be written to is counted as one at least. */
const DISK_BLOCK = 4096;

export interface KeptBytesParts {
  /** Bytes that are kept of each stream. */
  maxOutput: number;
  /** Returns the bytes that a client may keep in all; `undefined` for no limit. */
  quotaOf(client: string): number | undefined;
}

/** How many bytes of captured output are on disk: of each stream, and of each client in all. */
export class KeptBytes {
  readonly #parts: KeptBytesParts;
  /** The client of each description, by the journal's number for it. */
  readonly #owners = new Map<number, string>();
  readonly #byFile = new Map<string, number>();
  readonly #byClient = new Map<string, number>();

  constructor(parts: KeptBytesParts) {
    this.#parts = parts;
  }

  ownerOf(id: number): string | undefined {
    return this.#owners.get(id);
  }

  own(id: number, client: string): void {
    this.#owners.set(id, client);
  }

  disown(id: number): void {
    this.#owners.delete(id);
  }

  /** Returns the bytes that a client keeps, with its reservations. */
  of(client: string): number {
    return this.#byClient.get(client) ?? 0;
  }

  #count(client: string, more: number): void {
    const bytes = this.of(client) + more;
    if (bytes === 0) this.#byClient.delete(client);
    else this.#byClient.set(client, bytes);
  }

  /**
   * Reserves the bytes of streams that are about to be captured.
   * @returns to be disposed of once they are counted themselves
   * @throws {Problem} EDQUOT if the client keeps enough
   */
  reserve({ name, quotas }: Client, streams: number): Reservation {
    // If the quota is smaller than a block for each, one program may still write up to the whole of it.
    const least = streams * Math.min(DISK_BLOCK, Math.floor((quotas.outputBytes ?? 0) / Math.max(streams, 1)));
    if (streams > 0) requireQuota(quotas, 'outputBytes', this.of(name) + Math.max(least, 1));
    this.#count(name, least);
    return new Reservation(() => this.#count(name, -least));
  }

  /** Records what a stream takes of the disk. @param bytes 0 once its file has been removed */
  record(id: number, stream: Stream, bytes: number): void {
    const client = this.#owners.get(id);
    if (client === undefined) return;
    const file = fileOf(id, stream);
    this.#count(client, bytes - (this.#byFile.get(file) ?? 0));
    if (bytes === 0) this.#byFile.delete(file);
    else this.#byFile.set(file, bytes);
  }

  /** Records the same of a stream that is being captured, in whole blocks. */
  recordExtent(
    id: number,
    stream: Stream,
    { size, first, open }: { size: number; first: number; open: boolean },
  ): void {
    this.record(id, stream, Math.max(open ? 1 : 0, Math.ceil((size - first) / DISK_BLOCK)) * DISK_BLOCK);
  }

  /** Returns how many bytes of a stream may be kept, beside what its client keeps of others. */
  roomFor(id: number, stream: Stream): number {
    const { maxOutput, quotaOf } = this.#parts;
    const client = this.#owners.get(id);
    const quota = client === undefined ? undefined : quotaOf(client);
    if (quota === undefined) return maxOutput;
    const others = this.of(client!) - (this.#byFile.get(fileOf(id, stream)) ?? 0);
    return Math.min(maxOutput, Math.max(0, quota - others));
  }
}
