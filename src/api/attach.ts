import type { AttachQuery } from '../../schemas/attach.ts';
import type { Reservation } from '../clients/quotas.ts';
import { Problem } from '../errors/problem.ts';
import type { Stream } from '../model/process.ts';
import { StreamSender } from '../output/stream-sender.ts';
import { Attachment, type AttachmentParts } from './attachment.ts';
import type { Call, Operation } from './operation.ts';

interface Attach {
  id: string;
  query: AttachQuery;
}

/** Attaches to the output and the input of processes. */
export class AttachOperations {
  readonly #parts: AttachmentParts;

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
  }

  /**
   * Opens what a socket needs, so that a refusal is an ordinary HTTP answer.
   * @returns to be disposed of when the connection has closed, whether or not it has begun
   */
  readonly open: Operation<Attach, Promise<Attachment>> = {
    audit: 'attach',
    run: async (call, { id, query }) => {
      const { handles, outputs } = this.#parts;
      const mayWrite = query.input === 'true';
      const handle = handles.get(call.client, id, mayWrite ? 'input' : 'see');
      const { description } = handle;
      using opened = new DisposableStack();
      const senders: StreamSender[] = [];
      for (const stream of ['stdout', 'stderr'] as const) {
        const offset = query[stream];
        if (offset === undefined && !description.output.streams.includes(stream)) continue;
        const start = offset === -1 ? undefined : (offset ?? 0);
        const sender = opened.use(await StreamSender.open(outputs, description, stream, start));
        if (sender.offset > sender.size) throw beyond(handle.id, stream, sender);
        senders.push(sender);
      }
      call.note({ input: mayWrite });
      return new Attachment(this.#parts, { call, handle, mayWrite, senders, held: opened.move() });
    },
  };

  /**
   * Reserves the quota of a socket before it exists.
   * @returns a reservation to dispose of when the connection has closed
   * @throws {Problem} EDQUOT
   */
  reserve({ client }: Pick<Call, 'client'>): Reservation {
    return client.reserve('sockets');
  }
}

function beyond(handle: string, stream: Stream, { offset, size }: StreamSender): Problem {
  const detail = `Offset ${offset} is beyond the ${size} bytes that ${stream} has so far. Continue from an offset that you have received.`;
  return new Problem('EINVAL', detail, {
    handle,
    errors: [{ path: `/${stream}`, message: `must be ${size} or less` }],
  });
}
