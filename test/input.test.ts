import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Descriptor } from '../src/kernel/descriptor.ts';
import { makePipe, writeNow } from '../src/kernel/pipe.ts';
import { Daemon, eventually, type Response, temporaryDirectory, withShortLimits } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';
import { head, unix } from './support/wire.ts';

const daemon = await Daemon.start(t);

const PIPE_BUF = 4096;
const PIPE = 65536;

/** A pipe that is full may have a last page with room: the sender's packets decide how it was filled. */
const isFull = (count: number): boolean => count > PIPE - PIPE_BUF && count <= PIPE;

const bytes = (count: number, letter = 'x'): Buffer => Buffer.alloc(count, letter);
const outputOf = async (id: string): Promise<string> => (await daemon.get(`/v1/handles/${id}/stdout`)).text;

/** A program that reads its input only once it gets SIGUSR1, and then all of it. */
const PATIENT = ['sh', '-c', 'trap "exec cat" USR1; echo ready; while :; do sleep 0.01; done'];

async function patient(on: Daemon = daemon, more: object = {}): Promise<{ id: string; process: { pid: number } }> {
  const handle = await on.spawn(PATIENT, more, { stdin: 'pipe', stdout: 'capture' });
  await eventually(async () => (await on.get(`/v1/handles/${handle.id}/stdout`)).text === 'ready\n');
  return handle;
}

async function end(...ids: string[]): Promise<void> {
  for (const id of ids) {
    await daemon.signal(id, 'SIGKILL');
    await daemon.waitid(id);
  }
}

t.test('a program reads what is written to its pipe, then the end', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  t.match(await daemon.write(id, 'before '), { status: 200, body: { accepted: 7 } });
  t.match(await daemon.write(id, 'after', '?eof=true'), { status: 200, body: { accepted: 5 } });
  t.match(await daemon.write(id, 'late'), { status: 410, body: { errno: 'EPIPE', handle: id } });
  t.match(await daemon.write(id, '', '?eof=true'), { status: 410, body: { errno: 'EPIPE' } }, 'nor closed twice');
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'exited', exitCode: 0 } });
  t.equal(await outputOf(id), 'before after');
});

/** The same pipe outside of the daemon, with as much in it. */
function twin(filled: number): { writer: Descriptor; close(): void } {
  const { reader, writer } = makePipe();
  writer.nonblocking = true;
  if (filled > 0) writeNow(writer, bytes(filled));
  return {
    writer,
    close: () => {
      reader.close();
      writer.close();
    },
  };
}

t.test('a nonblocking write accepts what write(2) does on a pipe with as much in it', async (t) => {
  const sizes = [1, 2, PIPE_BUF - 1, PIPE_BUF, PIPE_BUF + 1, 5000, PIPE - 1, PIPE, PIPE + 1, 3 * PIPE];
  const fills = [0, 1, PIPE_BUF, PIPE - PIPE_BUF - 1, PIPE - PIPE_BUF, PIPE - PIPE_BUF + 1, PIPE - 1, PIPE];
  for (const filled of fills)
    await Promise.all(
      sizes.map(async (size) => {
        const own = twin(filled);
        const wanted = writeNow(own.writer, bytes(size));
        own.close();
        for (const [nonblocking, query] of [
          [true, ''],
          [false, '?flags=MSG_DONTWAIT'],
        ] as const) {
          const { id } = await daemon.spawn(['sleep', '1000'], { nonblocking }, { stdin: 'pipe' });
          if (filled > 0) t.match((await daemon.write(id, bytes(filled))).body, { accepted: filled });
          const answer = await daemon.write(id, bytes(size), query);
          const what = `${size} bytes onto ${filled}${query}`;
          if (wanted > 0) t.same([answer.status, answer.body], [200, { accepted: wanted }], what);
          else {
            t.match(answer, { status: 409, headers: { 'retry-after': '1', link: /rel="monitor"/ } }, what);
            t.match(answer.body, { errno: 'EAGAIN', syscall: 'write', handle: id, retry: { afterMs: Number } }, what);
          }
          await end(id);
        }
      }),
    );
});

t.test('whoever reads, is gone, or never was: the answer is that of write(2)', async (t) => {
  const own = twin(0);
  own.close();
  for (const nonblocking of [false, true]) {
    const lost = await daemon.spawn(['sh', '-c', 'exec <&-; exec sleep 1000'], { nonblocking }, { stdin: 'pipe' });
    await eventually(async () => (await daemon.write(lost.id, 'x')).status === 410, 'the program closes its input');
    t.match((await daemon.write(lost.id, 'x')).body, { errno: 'EPIPE', syscall: 'write' }, 'closed by the reader');
    const ended = await daemon.spawn(['true'], { nonblocking }, { stdin: 'pipe' });
    await daemon.waitid(ended.id);
    await daemon.post('/v1/poll', { handles: [ended.id] });
    t.match((await daemon.write(ended.id, 'x')).body, { errno: 'EPIPE' }, 'the process has ended');
    const closed = await daemon.spawn(['sleep', '1000'], { nonblocking }, { stdin: 'pipe' });
    t.match((await daemon.write(closed.id, '', '?eof=true')).body, { accepted: 0 });
    t.match((await daemon.write(closed.id, 'x')).body, { errno: 'EPIPE' }, 'closed by a request');
    for (const stdin of ['null', { text: 'all' }]) {
      const never = await daemon.spawn(['sleep', '1000'], { nonblocking }, { stdin });
      t.match(await daemon.write(never.id, 'x'), { status: 404, body: { errno: 'ENODATA', handle: never.id } });
      t.match(await daemon.write(never.id, ''), { status: 404 }, 'even for nothing');
      await end(never.id);
    }
    const opened = (await daemon.post('/v1/handles', { open: { pid: closed.process.pid } })).body;
    t.match((await daemon.write(opened.id, 'x')).body, { errno: 'ENODATA' }, 'another description of the process');
    const { id } = await daemon.spawn(['sleep', '1000'], { nonblocking }, { stdin: 'pipe' });
    t.match(await daemon.write(id, ''), { status: 200, body: { accepted: 0 } }, 'nothing is accepted at once');
    await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
    t.match((await daemon.write(id, 'x')).body, { errno: 'ESTALE' });
    await end(lost.id, closed.id);
  }
});

t.test('a blocking write waits until everything is accepted, or says how much was', async (t) => {
  const { id } = await patient();
  const waiting = daemon.write(id, bytes(3 * PIPE));
  await eventually(async () => (await daemon.write(id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  t.match((await daemon.write(id, 'y', '?timeoutMs=1')).body, { accepted: 0 }, 'others wait behind it');
  await daemon.signal(id, 'SIGUSR1');
  t.match(await waiting, { status: 200, body: { accepted: 3 * PIPE } });
  await daemon.write(id, '', '?eof=true');
  await daemon.waitid(id);
  t.equal((await outputOf(id)).length, 'ready\n'.length + 3 * PIPE);

  const second = await patient();
  t.ok(isFull((await daemon.write(second.id, bytes(2 * PIPE), '?timeoutMs=100')).body.accepted));
  t.match((await daemon.write(second.id, bytes(PIPE_BUF), '?timeoutMs=1')).body, { accepted: 0 });
  const cut = daemon.write(second.id, bytes(PIPE_BUF));
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  await end(second.id);
  t.match((await cut).body, { errno: 'EPIPE' }, 'the reader ends');
});

t.test('a write that has begun counts what was accepted before the reader ended', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  const waiting = daemon.write(id, bytes(2 * PIPE));
  await eventually(async () => (await daemon.write(id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  await daemon.signal(id, 'SIGKILL');
  const { status, body } = await waiting;
  t.equal(status, 200);
  t.ok(isFull(body.accepted), `${body.accepted}`);
});

t.test('writes never mix, and are read in the order in which they came', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const letters = [...'abcdefghij'];
  const sizes = [3 * PIPE, 1, PIPE_BUF, 2 * PIPE + 1, 17, PIPE, PIPE_BUF + 1, 5 * PIPE, 2, 12_345];
  const dup = (await daemon.post('/v1/handles', { dup: id })).body.id;
  const answers = await Promise.all(
    letters.map((letter, at) => daemon.write(at % 2 === 0 ? id : dup, bytes(sizes[at]!, letter))),
  );
  t.same(
    answers.map(({ body }) => body.accepted),
    sizes,
  );
  await daemon.write(id, '', '?eof=true');
  await daemon.waitid(id);
  const runs = (await outputOf(id)).match(/(.)\1*/g)!;
  t.same(
    runs.map((run) => `${run.length} ${run[0]}`).sort(),
    letters.map((letter, at) => `${sizes[at]} ${letter}`).sort(),
  );

  const ordered = await patient();
  const first = daemon.write(ordered.id, bytes(2 * PIPE, 'a'));
  await eventually(async () => (await daemon.write(ordered.id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  const queue: Promise<Response>[] = [];
  for (const letter of 'bcdef') {
    queue.push(daemon.write(ordered.id, letter));
    await eventually(async () =>
      new RegExp(`^waitd_parked_calls ${1 + queue.length}$`, 'm').test((await daemon.get('/metrics')).text),
    );
  }
  await daemon.signal(ordered.id, 'SIGUSR1');
  await Promise.all([first, ...queue]);
  await daemon.write(ordered.id, '', '?eof=true');
  await daemon.waitid(ordered.id);
  t.match(await outputOf(ordered.id), /^ready\na{131072}bcdef$/);
});

t.test('a write that does not wait holds up no other while its body comes', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const slow = unix(daemon);
  slow.socket.write(head(daemon, `POST /v1/handles/${id}/stdin?flags=MSG_DONTWAIT`, 'content-length: 4'));
  slow.socket.write('la');
  t.match((await daemon.write(id, 'first ')).body, { accepted: 6 });
  slow.socket.write('st');
  await slow.until(/"accepted":4/);
  slow.socket.destroy();
  await daemon.write(id, '', '?eof=true');
  await daemon.waitid(id);
  t.equal(await outputOf(id), 'first last');
});

t.test('a write whose caller leaves is dropped, and the next has its turn', async (t) => {
  const { id } = await patient();
  const gone = new AbortController();
  const leaving = daemon.write(id, bytes(PIPE + 1, 'a'), '', { signal: gone.signal });
  await eventually(async () => (await daemon.write(id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  const behind = daemon.write(id, bytes(5, 'b'));
  gone.abort();
  await t.rejects(leaving);
  await daemon.signal(id, 'SIGUSR1');
  t.match((await behind).body, { accepted: 5 });
  await daemon.write(id, '', '?eof=true');
  await daemon.waitid(id);
  t.match(await outputOf(id), /^ready\na{61441,65536}b{5}$/);
});

t.test('thousands of writes wait for one reader, and all fail when it ends', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  await daemon.write(id, bytes(PIPE));
  const answers = Array.from({ length: 1000 }, () => daemon.write(id, 'x'));
  await eventually(async () => /^waitd_parked_calls 1000$/m.test((await daemon.get('/metrics')).text));
  await daemon.signal(id, 'SIGKILL');
  t.ok((await Promise.all(answers)).every(({ body }) => body.errno === 'EPIPE'));
});

t.test('bodies are streamed: a body without end is read as the program reads', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const request = httpRequest({
    socketPath: daemon.socket,
    method: 'POST',
    path: `/v1/handles/${id}/stdin?eof=true`,
    headers: { 'content-type': 'application/octet-stream', 'transfer-encoding': 'chunked', expect: '100-continue' },
  });
  const answer = new Promise<string>((resolve) =>
    request.once('response', (response) => response.on('data', (data) => resolve(String(data)))),
  );
  await new Promise((resolve) => {
    request.once('continue', resolve);
    request.flushHeaders();
  });
  for (const line of ['one\n', 'two\n', 'three\n']) {
    request.write(line);
    await eventually(async () => (await outputOf(id)).endsWith(line), 'each line arrives at once');
  }
  request.end('end');
  t.same(JSON.parse(await answer), { accepted: 17 });
  await daemon.waitid(id);
  t.equal(await outputOf(id), 'one\ntwo\nthree\nend');
});

t.test('a stream of input may pause longer than a request may take, and other bodies may not', async (t) => {
  const quick = await Daemon.start(t, { env: withShortLimits('http/limits.ts') });
  const { id } = await quick.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const slow = unix(quick).drip(
    head(quick, 'POST /v1/handles', 'content-length: 100000', 'content-type: application/json'),
  );
  const wire = unix(quick);
  wire.socket.write(head(quick, `POST /v1/handles/${id}/stdin`, 'content-length: 4098'));
  wire.socket.write('a'.repeat(4097));
  t.match(await slow.closed, /^HTTP\/1.1 408/);
  wire.socket.write('b');
  await wire.until(/"accepted":4098/);
  wire.socket.write(head(quick, 'GET /livez', 'connection: close'));
  await wire.closed;
  await quick.signal(id, 'SIGKILL');
  await quick.waitid(id);
  t.equal(await quick.stop(), 0);
});

t.test('an early answer leaves the connection usable, or closes it', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], { nonblocking: true }, { stdin: 'pipe' });
  const wire = unix(daemon);
  wire.socket.write(head(daemon, `POST /v1/handles/${id}/stdin`, `content-length: ${40 * PIPE}`));
  wire.socket.write(bytes(20 * PIPE));
  await wire.until(/"accepted":65536/);
  wire.socket.write(bytes(20 * PIPE));
  wire.socket.write(head(daemon, 'GET /livez', 'connection: close'));
  t.match(await wire.closed, /"accepted":65536}HTTP\/1.1 200/, 'the rest is discarded');
  const long = unix(daemon);
  long.socket.write(head(daemon, `POST /v1/handles/${id}/stdin`, `content-length: ${2 ** 30}`));
  long.socket.write(bytes(20 * PIPE));
  t.match(await long.closed, /^HTTP\/1.1 409[\s\S]*connection: close/i);
  await end(id);
});

t.test('what is not a write is refused with its reason', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  const headers = { 'content-type': 'application/json' };
  t.match(await daemon.write(id, '{}', '', { headers }), { status: 415, body: { errno: 'EPROTO' } });
  for (const query of ['?eof=1', '?flags=MSG_OOB', '?timeoutMs=-1', '?offset=1', '?eof=true&eof=true'])
    t.match(await daemon.write(id, 'x', query), { status: 400, body: { errno: 'EINVAL' } }, query);
  t.match(await daemon.write('h_unknown', 'x'), { status: 404, body: { errno: 'EBADF' } });
  t.match(await daemon.get(`/v1/handles/${id}/stdin`), { status: 405, headers: { allow: 'POST' } });
  t.match(await daemon.write(id, 'x', '', { headers: { 'content-encoding': 'gzip' } }), { status: 415 });
  for (const stdin of ['pipes', { pipe: true }, 1])
    t.match((await daemon.post('/v1/handles', { spawn: { argv: ['true'], stdin } })).body, { errno: 'EINVAL' });
  await end(id);
});

t.test('a write that is sent again with its key is made once', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const keyed = (key: string) => ({ headers: { 'idempotency-key': key } });
  t.match((await daemon.write(id, 'once', '', keyed('a'))).body, { accepted: 4 });
  const again = await daemon.write(id, 'once', '', keyed('a'));
  t.match(again, { body: { accepted: 4 }, headers: { 'idempotent-replayed': 'true' } });
  t.match(await daemon.write(id, 'other', '', keyed('a')), { status: 422 });
  t.match(await daemon.write(id, bytes(4 * 2 ** 20 + 1), '', keyed('b')), { status: 413, body: { errno: 'E2BIG' } });
  const racing = await Promise.all(Array.from({ length: 20 }, () => daemon.write(id, '!', '', keyed('c'))));
  t.ok(racing.every(({ body }) => body.accepted === 1));
  await daemon.write(id, '', '?eof=true', keyed('d'));
  t.match((await daemon.write(id, '', '?eof=true', keyed('d'))).body, { accepted: 0 }, 'closing is an act too');
  await daemon.waitid(id);
  t.equal(await outputOf(id), 'once!');

  const full = await daemon.spawn(['sleep', '1000'], { nonblocking: true }, { stdin: 'pipe' });
  await daemon.write(full.id, bytes(PIPE));
  t.equal((await daemon.write(full.id, 'x', '', keyed('e'))).status, 409);
  t.equal((await daemon.write(full.id, 'y', '', keyed('e'))).status, 409, 'EAGAIN frees the key');
  await end(full.id);
});

t.test('a partial write whose caller has left is told again by its key', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  const headers = { 'idempotency-key': 'partial' };
  const gone = new AbortController();
  const leaving = daemon.write(id, bytes(PIPE + 1), '', { headers, signal: gone.signal });
  await eventually(async () => (await daemon.write(id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  gone.abort();
  await t.rejects(leaving);
  t.ok(isFull((await daemon.write(id, bytes(PIPE + 1), '', { headers })).body.accepted));
  await end(id);
});

t.test('a closed handle is an end of file for its program, unless a duplicate is left', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'null' });
  const before = daemon.descriptors;
  const dup = (await daemon.post('/v1/handles', { dup: id })).body.id;
  const opened = (
    await daemon.post('/v1/handles', { open: { pid: (await daemon.get(`/v1/handles/${id}`)).body.process.pid } })
  ).body.id;
  await daemon.request('DELETE', `/v1/handles/${id}`);
  t.match((await daemon.write(dup, 'x')).body, { accepted: 1 });
  await daemon.request('DELETE', `/v1/handles/${dup}`);
  t.match((await daemon.waitid(opened)).body, { outcome: { reason: 'exited', exitCode: 0 } });
  await daemon.request('DELETE', `/v1/handles/${opened}`);
  await eventually(() => daemon.descriptors < before, 'the pipe and the pidfd are closed');
});

t.test('no other program gets the pipe, and the program nothing but its end of it', async (t) => {
  const first = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  const second = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  const open = ({ pid }: { pid: number }): string[] => readdirSync(`/proc/${pid}/fd`).sort();
  t.same(open(first.process), ['0', '1', '2']);
  t.same(open(second.process), ['0', '1', '2']);
  const flags = /^flags:\t(\d+)$/m.exec(readFileSync(`/proc/${first.process.pid}/fdinfo/0`, 'utf8'))![1]!;
  t.equal(Number.parseInt(flags, 8) & 0o4003, 0, 'read-only and blocking');
  t.match(readlinkSync(`/proc/${first.process.pid}/fd/0`), /^pipe:/);
  await daemon.write(first.id, 'all', '?eof=true');
  t.match((await daemon.waitid(first.id)).body, { outcome: { exitCode: 0 } }, 'its end is seen beside others');
  await end(second.id);
  const user = process.getuid!() === 0 ? { user: 'nobody' } : {};
  const again = await daemon.spawn(['sh', '-c', 'cat /dev/stdin'], {}, { ...user, stdin: 'pipe', stdout: 'capture' });
  await daemon.write(again.id, 'opened again', '?eof=true');
  await daemon.waitid(again.id);
  t.equal(await outputOf(again.id), 'opened again');
});

t.test('100 MB go through a program in both directions, and the sender waits for the reader', async (t) => {
  const own = await Daemon.start(t, { args: ['--max-output', '200000000'] });
  const { id } = await patient(own);
  const length = 100 * 2 ** 20;
  const chunkAt = (at: number): Buffer => Buffer.alloc(2 ** 18, at / 2 ** 18);
  const wire = unix(own);
  wire.socket.write(head(own, `POST /v1/handles/${id}/stdin?eof=true`, `content-length: ${length}`));
  let sent = 0;
  const sending = (async () => {
    for (let at = 0; at < length; at += 2 ** 18) {
      await new Promise((taken) => wire.socket.write(chunkAt(at), taken));
      sent += 2 ** 18;
    }
  })();
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await own.get('/metrics')).text));
  t.equal((await own.write(id, 'y', '?flags=MSG_DONTWAIT')).status, 409);
  for (let times = 0; times < 50; times += 1) await own.get('/livez');
  t.ok(sent <= 2 ** 20, `${sent} bytes were taken from the sender for a program that does not read`);
  await own.signal(id, 'SIGUSR1');
  await sending;
  await wire.until(new RegExp(`"accepted":${length}`));
  wire.socket.destroy();
  await own.waitid(id);
  let at = -'ready\n'.length;
  let isSame = true;
  const from = await new Promise<IncomingMessage>((resolve) =>
    httpRequest({ socketPath: own.socket, path: `/v1/handles/${id}/stdout` }, resolve).end(),
  );
  for await (const data of from as AsyncIterable<Buffer>)
    for (const byte of data) {
      isSame &&= at < 0 || byte === (Math.floor(at / 2 ** 18) & 0xff);
      at += 1;
    }
  t.equal(at, length);
  t.ok(isSame, 'every byte is in its place');
  t.equal(await own.stop(), 0);
});

t.test('input is kept over an upgrade, and what waits is told what was accepted', async (t) => {
  const own = await Daemon.start(t);
  const { id } = await own.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  t.match((await own.write(id, 'before ')).body, { accepted: 7 });
  const lazy = await patient(own);
  const waiting = own.write(lazy.id, bytes(PIPE + 1, 'a'));
  await eventually(async () => (await own.write(lazy.id, 'y', '?flags=MSG_DONTWAIT')).status === 409);
  const behind = own.write(lazy.id, 'b');
  await eventually(async () => /^waitd_parked_calls 2$/m.test((await own.get('/metrics')).text));
  await own.upgrade();
  t.ok(isFull((await waiting).body.accepted), 'as a write(2) that a signal interrupts');
  t.match((await behind).body, { errno: 'ESHUTDOWN' });
  t.match((await own.write(id, 'after', '?eof=true')).body, { accepted: 5 });
  await own.waitid(id);
  t.equal((await own.get(`/v1/handles/${id}/stdout`)).text, 'before after');
  t.match((await own.write(id, 'x')).body, { errno: 'EPIPE' });
  t.equal(
    (await own.write(lazy.id, bytes(PIPE_BUF), '?flags=MSG_DONTWAIT')).status,
    409,
    'the pipe is as full as before',
  );
  await own.upgrade();
  t.match((await own.write(id, 'x')).body, { errno: 'EPIPE' }, 'and stays closed');
  await own.signal(lazy.id, 'SIGUSR1');
  t.match((await own.write(lazy.id, 'c', '?eof=true')).body, { accepted: 1 });
  await own.waitid(lazy.id);
  t.match((await own.get(`/v1/handles/${lazy.id}/stdout`)).text, /^ready\na{61441,65536}c$/);
  t.equal(await own.stop(), 0);
});

t.test('after a crash a program reads the end of its input', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await Daemon.start(t, { directory });
  const output = join(directory, 'output');
  const script = `cat > ${output}; echo end >> ${output}; exec sleep 1000`;
  const { id } = await first.spawn(['sh', '-c', script], {}, { stdin: 'pipe' });
  await first.write(id, 'all there is ');
  await first.kill();
  await eventually(() => readFileSync(output, 'utf8') === 'all there is end\n');
  const next = await Daemon.start(t, { directory });
  t.match((await next.write(id, 'x')).body, { errno: 'EPIPE' });
  await next.signal(id, 'SIGKILL');
  await next.post('/v1/poll', { handles: [id] });
  t.equal(await next.stop(), 0);
});

t.test('writing is a right of its own, which the right to signal implies', async (t) => {
  const own = await startWithPolicy(t, {
    worker: { ...full, input: false },
    typist: { spawn: true, input: true },
    usual: full,
    watcher: { observe: true },
    boss: { admin: true },
  });
  const spawn = { argv: ['cat'], stdin: 'pipe' };
  const made = async (name: string): Promise<string> =>
    (await own.post('/v1/handles', { spawn }, as(name))).body.id as string;
  const write = async (id: string, name: string): Promise<Response> => own.write(id, 'x', '', as(name));
  const worker = await made('worker');
  t.match(await write(worker, 'worker'), { status: 403, body: { errno: 'EPERM', detail: /write to processes/ } });
  const typist = await made('typist');
  t.equal((await write(typist, 'typist')).status, 200);
  const usual = await made('usual');
  t.equal((await write(usual, 'usual')).status, 200);
  t.match(await write(usual, 'watcher'), { status: 403 });
  t.match(await write(usual, 'typist'), { status: 404, body: { errno: 'EBADF' } });
  t.equal((await write(usual, 'boss')).status, 200);
  for (const id of [worker, typist, usual]) await own.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`, as('boss'));
  t.equal(await own.stop(), 0);
});

t.test('a write that waits counts against the quota of parked waits', async (t) => {
  const own = await startWithPolicy(t, { a: { ...full, quotas: { parkedWaits: 1 } } });
  const { id } = (await own.post('/v1/handles', { spawn: { argv: ['sleep', '1000'], stdin: 'pipe' } }, as('a'))).body;
  const waiting = own.write(id, bytes(PIPE + 1), '', as('a'));
  await eventually(async () => (await own.write(id, 'x', '', as('a'))).status === 429);
  await own.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`, as('a'));
  t.ok(isFull((await waiting).body.accepted));
  t.equal(await own.stop(), 0);
});

const stuckReader = join(temporaryDirectory(t), 'stuck-reader');
execFileSync('gcc', ['-O1', '-o', stuckReader, join(import.meta.dirname, 'native/stuck-reader.c')]);
const cannotFault = spawnSync(stuckReader, { input: '' }).status === 3 && 'this user has no userfaultfd(2)';

t.test('a program that holds the lock of its pipe delays its own client alone', { skip: cannotFault }, async (t) => {
  const own = await startWithPolicy(t, { a: full, b: full });
  const bodyFor = (argv: string[]): object => ({ spawn: { argv, stdin: 'pipe', stdout: 'capture' } });
  const stuck = (await own.post('/v1/handles', bodyFor([stuckReader]), as('a'))).body;
  const other = (await own.post('/v1/handles', bodyFor(['cat']), as('b'))).body;
  const isReading = async (): Promise<boolean> =>
    (await own.get(`/v1/handles/${stuck.id}/stdout`, as('a'))).text === 'reading\n';
  await eventually(isReading);
  await own.write(stuck.id, 'x', '', as('a'));
  // It faults while the kernel copies the byte to it.
  await eventually(() => /handle_userfault/.test(readFileSync(`/proc/${stuck.process.pid}/stack`, 'utf8')));
  const blocked = own.write(stuck.id, 'y', '', as('a'));
  t.match((await own.write(other.id, 'others go on', '', as('b'))).body, { accepted: 12 });
  await own.request(
    'DELETE',
    `/v1/handles/${(await own.post('/v1/handles', { dup: stuck.id }, as('a'))).body.id}`,
    as('a'),
  );
  await own.write(other.id, '', '?eof=true', as('b'));
  await own.waitid(other.id, undefined, as('b'));
  t.equal((await own.get(`/v1/handles/${other.id}/stdout`, as('b'))).text, 'others go on');
  t.equal((await own.get('/livez')).status, 200);
  await own.request('DELETE', `/v1/handles/${stuck.id}?signal=SIGKILL`, as('a'));
  t.ok([200, 410].includes((await blocked).status), 'it is over once the program has ended');
  t.equal(await own.stop(), 0);
});

t.test('pipes that end in every way leave no descriptor', async (t: Test) => {
  const before = daemon.descriptors;
  for (let round = 0; round < 5; round += 1)
    await Promise.all(
      Array.from({ length: 20 }, async (_, at) => {
        const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe' });
        const writing = daemon.write(id, bytes(at * 1000));
        if (at % 3 === 0) await daemon.signal(id, 'SIGKILL');
        else if (at % 3 === 1) await daemon.write(id, '', '?eof=true');
        else await daemon.request('DELETE', `/v1/handles/${id}`);
        await writing;
        if (at % 3 !== 2) await daemon.waitid(id);
      }),
    );
  await Promise.all(
    Array.from({ length: 20 }, async () =>
      daemon.post('/v1/handles', { spawn: { argv: ['/nonexistent'], stdin: 'pipe' } }),
    ),
  );
  await eventually(() => daemon.descriptors <= before, `${before} before`);
  t.pass();
});

t.teardown(() => daemon.stop());
