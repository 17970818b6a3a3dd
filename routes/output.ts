import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { pipeline, type Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';
import * as contract from '../schemas/operations/output.ts';
import { OutputOperations } from '../src/api/output.ts';
import type { Daemon } from '../src/daemon.ts';
import { Problem } from '../src/errors/problem.ts';
import type { App } from '../src/http/app-type.ts';
import { callOf } from '../src/http/in-flight-requests.ts';
import { rangeOf } from '../src/http/range.ts';
import { untilClosed } from '../src/http/until-closed.ts';

const streams = ['stdout', 'stderr'] as const;
const schemas = { stdout: contract.readStdout, stderr: contract.readStderr };

/** Registers the routes of captured output. */
export function outputRoutes(app: App, daemon: Daemon): void {
  const operations = new OutputOperations(daemon);
  for (const name of streams)
    app.get(`/v1/handles/:id/${name}`, {
      schema: schemas[name],
      handler: async (request, reply) => {
        const call = callOf(request, reply);
        const { id } = request.params;
        operations.requireHandle(call, id);
        const { follow, tail } = request.query;
        // If-Range never matches, because the stream has no validator; the answer is then the whole stream (RFC 9110 13.1.5). Range
        // applies to GET only (RFC 9110 14.2).
        const isForPart = request.method === 'GET' && request.headers['if-range'] === undefined;
        const header = isForPart ? request.headers.range : undefined;
        if (header !== undefined && (follow === 1 || tail !== undefined))
          throw new Problem('EINVAL', 'Range cannot be combined with follow or tail. Leave out one of them.');
        if (follow === 1) untilClosed(reply.raw, operations.reserve(call));
        const output = await operations.read.run(call, { id, stream: name });
        const start = tail === undefined ? output.first : await output.startOfLines(tail);
        if (reply.raw.destroyed || request.method === 'HEAD') await output.close();
        if (reply.raw.destroyed) return reply.hijack();
        if (request.method === 'HEAD') {
          writeHead(reply, { ...headersOf(start), 'content-length': output.size - start }).end();
          return reply;
        }
        const range = rangeOf(header, output.size);
        if (range === null) {
          if (follow === 1) return stream(reply, start, output.follow(start));
          // With Content-Length the client detects an incomplete answer.
          reply.header('content-length', output.size - start);
          return send(reply, start, output.range(start, output.size));
        }
        if (range === 'unsatisfiable' || range.to <= output.first) {
          await output.close();
          const headers = { 'content-range': `bytes */${output.size}` };
          const { first, size } = output;
          const kept = size > first ? `bytes ${first} to ${size - 1}` : 'no bytes';
          const detail = `The stream does not have these bytes. It has ${kept} now. Ask for those, or follow it.`;
          throw new Problem('EPROTO', detail, { status: 416, headers });
        }
        const from = Math.max(range.from, output.first);
        reply
          .code(206)
          .header('content-range', `bytes ${from}-${range.to - 1}/${output.size}`)
          .header('content-length', range.to - from);
        return send(reply, from, output.range(from, range.to));
      },
    });
}

const headersOf = (offset: number) => ({
  'content-type': 'application/octet-stream',
  'waitd-offset': offset,
  'accept-ranges': 'bytes',
});

function send(reply: FastifyReply, offset: number, bytes: Readable): FastifyReply {
  return reply.headers(headersOf(offset)).send(bytes as never);
}

function writeHead(reply: FastifyReply, headers: OutgoingHttpHeaders): ServerResponse {
  reply.hijack();
  return reply.raw.writeHead(200, { ...(reply.getHeaders() as OutgoingHttpHeaders), ...headers });
}

/** Streams the bytes. Sends the headers at once, even before the first byte is available. */
function stream(reply: FastifyReply, offset: number, bytes: Readable): FastifyReply {
  writeHead(reply, { ...headersOf(offset), 'x-accel-buffering': 'no' }).flushHeaders();
  // An error means that the client has disconnected or the file was lost. Both end the connection.
  pipeline(bytes, reply.raw, () => {});
  return reply;
}
