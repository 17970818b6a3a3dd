import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, Gate } from './support/harness.ts';

const capture = { stdout: 'capture', stderr: 'capture' };

/** Follows a stream; returns what has arrived so far. */
async function follow(daemon: Daemon, path: string): Promise<{ response: IncomingMessage; text: () => string }> {
  const [response] = (await once(httpGet({ socketPath: daemon.socket, path, agent: false }), 'response')) as [
    IncomingMessage,
  ];
  let text = '';
  response.on('data', (data) => {
    text += data;
  });
  response.on('error', () => {});
  return { response, text: () => text };
}

/** Lists the daemon's open files. */
const filesOf = ({ pid }: Daemon): string[] =>
  readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return ''; // closed in the meantime
    }
  });

t.test('output can be read whole, in ranges, and by lines', async (t) => {
  const daemon = await Daemon.start(t);
  const script = 'printf "one\\ntwo\\nthree"; printf "oops\\n" >&2';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, capture);
  await daemon.waitid(id);
  const url = `/v1/handles/${id}/stdout`;
  const whole = await daemon.get(url);
  t.match(whole, {
    status: 200,
    text: 'one\ntwo\nthree',
    headers: { 'content-type': 'application/octet-stream', 'waitd-offset': '0', 'accept-ranges': 'bytes' },
  });
  t.equal((await daemon.get(`/v1/handles/${id}/stderr`)).text, 'oops\n');
  const size = whole.text.length;
  for (const [range, status, text, where] of [
    ['bytes=0-2', 206, 'one', `bytes 0-2/${size}`],
    ['bytes=4-', 206, 'two\nthree', `bytes 4-12/${size}`],
    ['bytes=-5', 206, 'three', `bytes 8-12/${size}`],
    ['bytes=-500', 206, whole.text, `bytes 0-12/${size}`],
    ['bytes=0-500', 206, whole.text, `bytes 0-12/${size}`],
    ['bytes=12-12', 206, 'e', `bytes 12-12/${size}`],
    ['bytes=13-', 416, null, `bytes */${size}`],
    ['bytes=-0', 416, null, `bytes */${size}`],
    ['bytes=0-1,3-4', 200, whole.text, undefined],
    ['lines=0-1', 200, whole.text, undefined],
    ['bytes=5-2', 200, whole.text, undefined],
    ['bytes=-', 200, whole.text, undefined],
    ['bytes=x', 200, whole.text, undefined],
  ] as const) {
    const part = await daemon.get(url, { headers: { range } });
    t.equal(part.status, status, range);
    t.equal(part.headers['content-range'], where, range);
    if (text === null) t.match(part.body, { errno: 'EPROTO' });
    else t.equal(part.text, text, range);
  }
  for (const [tail, text] of [
    [0, ''],
    [1, 'three'],
    [2, 'two\nthree'],
    [3, whole.text],
    [100, whole.text],
  ] as const)
    t.equal((await daemon.get(`${url}?tail=${tail}`)).text, text, `tail=${tail}`);
  t.equal((await daemon.get(`/v1/handles/${id}/stderr?tail=1`)).text, 'oops\n');
  t.equal((await daemon.get(`${url}?follow=1`)).text, whole.text, 'an ended stream sends nothing more');
  const head = await daemon.request('HEAD', `${url}?follow=1`);
  t.match(head, { status: 200, text: '', headers: { 'content-length': String(size), 'accept-ranges': 'bytes' } });
  for (const query of ['tail=-1', 'tail=x', 'follow=2', 'follow=true', 'tial=3', 'tail=100001'])
    t.match(await daemon.get(`${url}?${query}`), { status: 400, body: { errno: 'EINVAL' } }, query);
  for (const query of ['tail=1', 'follow=1'])
    t.match(await daemon.get(`${url}?${query}`, { headers: { range: 'bytes=0-' } }), { status: 400 }, query);
  daemon.disconnect();
  await eventually(() => !filesOf(daemon).some((path) => path.endsWith('.stdout')));
  t.pass('no answer leaves the file open, HEAD included');
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.equal((await heir.get(url)).text, whole.text, 'after a restart');
  t.equal(await heir.stop(), 0);
});

t.test('lines longer than one read', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'in');
  const lines = [10, 70_000, 65_536, 65_535, 1, 0, 200_000].map((length, at) => String(at).repeat(length));
  for (const end of ['', '\n']) {
    writeFileSync(file, lines.join('\n') + end);
    const { id } = await daemon.spawn(['cat', file], {}, capture);
    await daemon.waitid(id);
    for (let tail = 0; tail <= lines.length + 1; tail += 1) {
      const { text } = await daemon.get(`/v1/handles/${id}/stdout?tail=${tail}`);
      const expected = tail === 0 ? '' : lines.slice(-tail).join('\n') + end;
      t.ok(text === expected, `${tail} lines`);
    }
  }
  t.equal(await daemon.stop(), 0);
});

t.test('output belongs to its description, and only its client can read it', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--insecure-no-auth'] });
  const one = await daemon.spawn(['sh', '-c', 'echo mine; sleep 100'], {}, { stdout: 'capture' });
  const twin = (await daemon.post('/v1/handles', { dup: one.id })).body;
  const url = `/v1/handles/${one.id}/stdout`;
  await eventually(async () => (await daemon.get(url)).text === 'mine\n');
  t.equal((await daemon.get(`/v1/handles/${twin.id}/stdout`)).text, 'mine\n', 'a dup shares it');
  t.match((await daemon.get(`/v1/handles/${one.id}/stderr`)).body, { errno: 'ENODATA' }, 'not captured');
  const opened = (await daemon.post('/v1/handles', { open: { pid: one.process.pid } })).body;
  t.match(
    (await daemon.get(`/v1/handles/${opened.id}/stdout`)).body,
    { errno: 'ENODATA' },
    'the output belongs to another description',
  );
  const stranger = await fetch(`http://127.0.0.1:${daemon.port}${url}`);
  t.match(await stranger.json(), { errno: 'EBADF' });
  t.match((await daemon.get('/v1/handles/h_x/stdout')).body, { errno: 'EBADF' });
  const output = join(daemon.directory, 'state', 'output');
  await daemon.request('DELETE', `/v1/handles/${one.id}`);
  t.match((await daemon.get(url)).body, { errno: 'ESTALE' });
  t.equal((await daemon.get(`/v1/handles/${twin.id}/stdout`)).text, 'mine\n', 'while one handle is left');
  await daemon.request('DELETE', `/v1/handles/${twin.id}`);
  t.same(readdirSync(output), [], 'the file is removed with the last handle, although it is still writable');
  await daemon.post(`/v1/handles/${opened.id}/terminate`);
  t.match(await daemon.post('/v1/handles', { spawn: { argv: ['/nonexistent'], ...capture } }), { status: 422 });
  t.same(readdirSync(output), [], 'a failed spawn leaves nothing behind');
  t.equal(await daemon.stop(), 0);
});

t.test('following continues until the process has ended, byte by byte, for many readers at once', async (t) => {
  const daemon = await Daemon.start(t);
  await daemon.waitid((await daemon.spawn(['true'])).id); // so that the daemon has opened what it opens only once
  const before = daemon.descriptors;
  const gate = new Gate(t);
  const script = `echo begin; while read -r line < ${gate.path}; do [ "$line" = end ] && exit 0; printf %s "$line"; done`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, capture);
  const followers = await Promise.all(
    Array.from({ length: 50 }, () => follow(daemon, `/v1/handles/${id}/stdout?follow=1`)),
  );
  const late = await follow(daemon, `/v1/handles/${id}/stdout?follow=1&tail=0`);
  let expected = 'begin\n';
  for (const letter of 'waitid') {
    await eventually(() => followers.every(({ text }) => text() === expected));
    gate.open(letter);
    expected += letter;
  }
  await eventually(() => followers.every(({ text }) => text() === expected));
  t.pass('each letter arrived when it was written');
  const [leaver, ...others] = followers;
  leaver!.response.destroy();
  gate.open('end');
  await Promise.all(others.map(({ response }) => once(response, 'end')));
  t.ok(others.every(({ text }) => text() === expected));
  t.equal(late.text(), 'waitid');
  daemon.disconnect();
  await eventually(() => daemon.descriptors <= before);
  t.pass('no descriptor is left open');
  t.equal(await daemon.stop(), 0);
});

t.test('a dup that is made after the end of the output has its event too', async (t) => {
  const daemon = await Daemon.start(t);
  const namesOf = async (id: string): Promise<string[]> => (await daemon.events(id)).map(({ event }) => event);
  const { id } = await daemon.spawn(['true'], {}, { stdout: 'capture' });
  await eventually(async () => (await namesOf(id)).includes('output'));
  await daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  const twin = (await daemon.post('/v1/handles', { dup: id })).body;
  t.same(await namesOf(twin.id), ['opened', 'exited', 'settled', 'output']);
  const silent = await daemon.spawn(['true']);
  await daemon.post('/v1/poll', { handles: [silent.id], for: 'settled' });
  const other = (await daemon.post('/v1/handles', { dup: silent.id })).body;
  t.same(await namesOf(other.id), ['opened', 'exited', 'settled'], 'without captured output there is none');
  t.equal(await daemon.stop(), 0);
});

t.test('a grandchild keeps the output open: exited is sent at once, output when the stream ends', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const script = `echo one; { read -r line < ${gate.path}; echo two; } & exit 0`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, capture);
  const twin = (await daemon.post('/v1/handles', { dup: id })).body;
  await daemon.waitid(id);
  const followed = await daemon.get(`/v1/handles/${id}/stdout?follow=1`);
  t.equal(followed.text, 'one\n', 'following ends with the process');
  t.same(
    (await daemon.events(id)).map(({ event }) => event),
    ['opened', 'exited'],
  );
  await daemon.upgrade();
  t.same(
    (await daemon.events(id)).map(({ event }) => event),
    ['opened', 'exited'],
    'nor after an upgrade',
  );
  gate.open();
  await eventually(async () => (await daemon.events(id)).length === 4);
  const ends = (await daemon.events(id)).slice(2).sort((a, b) => a.event.localeCompare(b.event));
  const outcome = { reason: 'exited', exitCode: 0 };
  t.match(ends, [
    { event: 'output', outcome },
    { event: 'settled', outcome },
  ]);
  const ofTwin = (await daemon.events(twin.id)).map(({ event }) => event);
  t.same([ofTwin.length, ofTwin.includes('output')], [4, true], 'one event per handle');
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text, 'one\ntwo\n');
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.equal((await heir.events(id)).length, 4, 'reported once');
  t.equal(await heir.stop(), 0);
});

t.test('output that ends without a daemon is reported at the next start, and unowned output is removed', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const own = await daemon.spawn(['sh', '-c', `echo one; read -r line < ${gate.path}`], {}, capture);
  const other = await daemon.spawn(['sh', '-c', `read -r line < ${gate.path}`], {}, capture);
  const { id } = own;
  await daemon.request('DELETE', `/v1/handles/${other.id}`);
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  for (let reader = 0; reader < 2; reader += 1) gate.open();
  for (const { pid } of [own.process, other.process]) await eventually(() => !existsSync(`/proc/${pid}/fd/1`));
  const heir = await Daemon.start(t, { directory: daemon.directory });
  await eventually(async () => (await heir.events(id)).filter(({ event }) => event === 'output').length === 1);
  t.same(readdirSync(join(daemon.directory, 'state', 'output')).sort(), ['1.stderr', '1.stdout']);
  await heir.request('DELETE', `/v1/handles/${id}`);
  t.same(readdirSync(join(daemon.directory, 'state', 'output')), []);
  t.equal(await heir.stop(), 0);
});

t.test(
  'the newest part of each stream is kept, drops are reported, and a closed handle affects no program',
  async (t) => {
    const limit = 1 << 20;
    const daemon = await Daemon.start(t, { args: ['--max-output', String(limit)] });
    const gate = new Gate(t);
    const total = 40 << 20;
    const script = `head -c ${total} /dev/zero | tr '\\0' x; read -r line < ${gate.path}; head -c ${total} /dev/zero`;
    const { id, process } = await daemon.spawn(['sh', '-c', script], {}, capture);
    const file = join(daemon.directory, 'state', 'output', '1.stdout');
    await eventually(() => statSync(file).size === total);
    await eventually(() => statSync(file).blocks * 512 <= limit + (1 << 20));
    t.equal(statSync(file).size, total, 'offsets stay true');
    const { text, headers } = await daemon.get(`/v1/handles/${id}/stdout`);
    const offset = Number(headers['waitd-offset']);
    t.ok(offset > 0);
    t.ok(text.length >= limit && text.length === total - offset);
    t.ok(/^x+$/.test(text), 'no zero bytes of a hole are sent');
    t.match(await daemon.get(`/v1/handles/${id}/stdout`, { headers: { range: 'bytes=0-99' } }), {
      status: 416,
      headers: { 'content-range': `bytes */${total}` },
    });
    t.match(await daemon.get(`/v1/handles/${id}/stdout`, { headers: { range: `bytes=0-${offset + 1}` } }), {
      status: 206,
      text: 'xx',
      headers: { 'content-range': `bytes ${offset}-${offset + 1}/${total}` },
    });
    t.match((await daemon.get('/metrics')).text, /^waitd_output_dropped_bytes_total [1-9]/m);
    const other = (await daemon.post('/v1/handles', { open: { pid: process.pid } })).body;
    await daemon.request('DELETE', `/v1/handles/${id}`);
    t.notOk(existsSync(file));
    gate.open();
    t.match((await daemon.waitid(other.id)).body, { outcome: { reason: 'exited', exitCode: 0 } }, 'no SIGPIPE');
    t.notOk(existsSync(file));
    t.equal(await daemon.stop(), 0);
  },
);

t.test('a follower that does not read costs nothing, and continues at its position', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const script = `head -c 30000000 /dev/zero; read -r line < ${gate.path}; printf more; read -r line < ${gate.path}`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, capture);
  const request = httpGet({ socketPath: daemon.socket, path: `/v1/handles/${id}/stdout?follow=1` });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const status = (): number =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))![1]) / 1024;
  const file = join(daemon.directory, 'state', 'output', '1.stdout');
  await eventually(() => statSync(file).size === 30_000_000);
  const before = status();
  for (let n = 0; n < 200; n += 1) await daemon.get('/livez');
  t.ok(status() - before < 25, 'MiB, and not the whole file');
  let size = 0;
  let last = '';
  response.on('data', (data: Buffer) => {
    size += data.length;
    last = data.toString('latin1').slice(-4);
  });
  await eventually(() => size === 30_000_000);
  gate.open();
  await eventually(() => last === 'more');
  t.equal(size, 30_000_004);
  gate.open();
  await once(response, 'end');
  t.equal(await daemon.stop(), 0);
});

t.test('an upgrade and a close break off a followed stream abnormally; it can be resumed', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sh', '-c', 'echo begin; exec sleep 100'], {}, capture);
  const one = await follow(daemon, `/v1/handles/${id}/stdout?follow=1`);
  await eventually(() => one.text() === 'begin\n');
  const broken = new Promise((resolve) => one.response.once('close', resolve));
  await daemon.upgrade();
  await broken;
  t.equal(one.response.complete, false);
  const two = await follow(daemon, `/v1/handles/${id}/stdout?follow=1`);
  await eventually(() => two.text() === 'begin\n');
  await daemon.signal(id, 'SIGKILL');
  await once(two.response, 'end');
  t.equal(two.response.complete, true);
  for (const script of ['while :; do echo more; sleep 0.05; done', 'echo more; exec sleep 100']) {
    const { id: writer, process: child } = await daemon.spawn(['sh', '-c', script], {}, capture);
    const three = await follow(daemon, `/v1/handles/${writer}/stdout?follow=1`);
    await eventually(() => three.text() !== '');
    const removed = new Promise((resolve) => three.response.once('close', resolve));
    await daemon.request('DELETE', `/v1/handles/${writer}`);
    await removed;
    t.equal(three.response.complete, false, script);
    process.kill(child.pid, 'SIGKILL');
  }
  t.equal(await daemon.stop(), 0);
});
