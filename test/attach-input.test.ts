import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Attached, type AttachOptions } from './support/attached.ts';
import { Daemon, eventually, Gate, temporaryDirectory, withShortLimits } from './support/harness.ts';
import { as, full, policyOf, startWithPolicy, tokenOf, writePolicy } from './support/policies.ts';

const daemon = await Daemon.start(t);
const PIPED = { stdin: 'pipe', stdout: 'capture' };
const attach = (id: string, query = '', more: AttachOptions = {}): Attached =>
  new Attached(daemon, id, { query, ...more });
const residentMiB = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

t.test('frames of several clients, and requests, are written whole', async (t) => {
  const size = 100_001;
  const { id } = await daemon.spawn(['cat'], {}, PIPED);
  const writers = [...'abc'].map((letter) => ({ letter, socket: attach(id, '?stdout=-1', { keeps: false }) }));
  await Promise.all(writers.map(({ socket }) => socket.first('attached')));
  const reader = attach(id);
  await Promise.all([
    ...writers.map(async ({ letter, socket }) => {
      for (let time = 0; time < 20; time += 1) await socket.write(letter.repeat(size));
    }),
    ...[...'de'].map(async (letter) => {
      for (let time = 0; time < 5; time += 1) await daemon.write(id, letter.repeat(size));
    }),
  ]);
  await reader.until(() => reader.at.stdout === 70 * size);
  await daemon.write(id, '', '?eof=true');
  await reader.end();
  const runs = [...reader.text().matchAll(/(.)\1*/g)].map(([run]) => run);
  t.ok(runs.every((run) => run.length % size === 0));
  t.ok(runs.length > 5, 'they take turns');
});

t.test('refused frames are error frames, and the socket stays open', async (t) => {
  const refusals = async (id: string, frames: unknown[]): Promise<string[]> => {
    const socket = attach(id);
    await socket.first('attached');
    for (const frame of frames) socket.send(frame);
    await socket.until(() => socket.frames.length > frames.length);
    socket.detach();
    return socket.frames.slice(1).map(({ errno }) => errno);
  };
  const input = Buffer.from('\0x');
  const { id: never } = await daemon.spawn(['sleep', '1000']);
  const nonsense = [
    '',
    'x',
    '[]',
    '{}',
    { type: 'nonsense' },
    { type: 'eof', more: 1 },
    { type: 'signal' },
    { type: 'signal', signal: 'SIGNONE' },
    { type: 'signal', signal: 65 },
    { type: 'resize', rows: 0, cols: 1 },
    { type: 'resize', rows: 1 },
    { type: 'input' },
    Buffer.alloc(0),
    Buffer.from('\x01x'),
    Buffer.from('x'),
  ];
  t.same(
    await refusals(never, nonsense),
    nonsense.map(() => 'EINVAL'),
  );
  t.same(await refusals(never, [input, { type: 'eof' }, { type: 'resize', rows: 1, cols: 1 }]), [
    'ENODATA',
    'ENODATA',
    'ENOTTY',
  ]);

  const { id: unread } = await daemon.spawn(['sh', '-c', 'exec <&-; echo closed; exec sleep 1000'], {}, PIPED);
  const witness = attach(unread);
  await witness.until(() => witness.text() === 'closed\n');
  t.same(await refusals(unread, [input, input, { type: 'eof' }]), ['EPIPE', 'EPIPE', 'EPIPE'], 'no reader is left');
  const again = attach(unread);
  t.match(await again.first('attached'), { stdin: 'closed' });
  again.detach();

  const { id: closed } = await daemon.spawn(['sh', '-c', 'cat; exec sleep 1000'], {}, PIPED);
  const socket = attach(closed);
  await socket.write('before');
  socket.send({ type: 'eof' });
  await socket.write('after');
  t.match(await socket.first('error'), { errno: 'EPIPE' });
  await socket.until(() => socket.text() === 'before');
  socket.send({ type: 'signal', signal: 9 });
  t.match(await socket.first('exited'), { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  await socket.end();
  for (const each of [never, unread]) await daemon.signal(each, 'SIGKILL');
  await witness.end();
});

t.test('a terminal is typed into, sized and ended in order', async (t) => {
  const script = 'read -r line; stty size; echo "got $line"; cat; echo "code $?"';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { tty: { rows: 24, cols: 80 } });
  const socket = attach(id);
  t.match(await socket.first('attached'), { stdin: 'open', stdout: { offset: 0 }, stderr: null });
  socket.send({ type: 'resize', rows: 50, cols: 132 });
  await socket.write('typed\n');
  await socket.until(() => /50 132\r\ngot typed\r\n$/.test(socket.text()));
  await socket.write('to cat\n');
  socket.send({ type: 'eof' });
  await socket.until(() => /code 0\r\n$/.test(socket.text()));
  t.match(await socket.first('exited'), { outcome: { exitCode: 0 } });
  await socket.end();
  t.match(socket.text(), /to cat\r\nto cat\r\ncode 0\r\n$/);
  t.same(
    socket.frames.map(({ type }) => type),
    ['attached', 'exited', 'end'],
  );
});

t.test('a frame over the limit closes the socket with 1009', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, PIPED);
  const socket = attach(id);
  await socket.write('x'.repeat(128 * 1024 - 1));
  await socket.until(() => socket.at.stdout === 128 * 1024 - 1);
  await socket.write('x'.repeat(128 * 1024));
  t.match(await socket.closed, { code: 1009 });
  await daemon.write(id, '', '?eof=true');
});

t.test('a socket whose input is full is not read from, and everything arrives in the end', async (t) => {
  const gate = new Gate(t);
  const { id } = await daemon.spawn(['sh', '-c', `read -r line <${gate.path}; exec cat`], {}, PIPED);
  const socket = attach(id);
  const bytes = randomBytes(32 * 2 ** 20);
  await socket.first('attached');
  const before = residentMiB(daemon.pid);
  const part = 100_000;
  let left = 0;
  const sent: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += part)
    sent.push(
      socket.write(bytes.subarray(at, at + part)).then(() => {
        left += part;
      }),
    );
  // Other clients are served meanwhile, and the daemon takes only what one frame and its buffers hold.
  for (let time = 0; time < 50; time += 1) await daemon.get(`/v1/handles/${id}`);
  const taken = left;
  for (let time = 0; time < 50; time += 1) await daemon.get(`/v1/handles/${id}`);
  t.ok(left < 4 * 2 ** 20, `${left} bytes have left the client`);
  t.equal(left, taken, 'and no more follow');
  t.ok(residentMiB(daemon.pid) - before < 24, `${residentMiB(daemon.pid) - before} MiB`);
  gate.open();
  await Promise.all(sent);
  socket.send({ type: 'eof' });
  await socket.end();
  t.ok(Buffer.concat(socket.received.stdout).equals(bytes));
});

t.test('100 MB through a program, both ways at once, take no memory', async (t) => {
  const fresh = await Daemon.start(t);
  const { id } = await fresh.spawn(['cat'], {}, PIPED);
  const socket = new Attached(fresh, id);
  const mib = randomBytes(2 ** 20);
  await socket.first('attached');
  const before = residentMiB(fresh.pid);
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, residentMiB(fresh.pid));
  }, 20);
  for (let count = 0; count < 100; count += 1)
    for (let at = 0; at < mib.length; at += 2 ** 16) await socket.write(mib.subarray(at, at + 2 ** 16));
  socket.send({ type: 'eof' });
  await socket.end();
  clearInterval(timer);
  const all = Buffer.concat(socket.received.stdout);
  t.equal(all.length, 100 * mib.length);
  for (let count = 0; count < 100; count += 1)
    if (all.compare(mib, 0, mib.length, count * mib.length, (count + 1) * mib.length) !== 0) t.fail(`MiB ${count}`);
  t.ok(most - before < 120, `${before} MiB before, ${most} MiB at most`);
  t.equal(await fresh.stop(), 0);
});

t.test('of ten clients two stop reading, and neither the others nor the program wait for them', async (t) => {
  const count = 500_000;
  const { id } = await daemon.spawn(['sh', '-c', `read -r line; exec seq ${count}`], {}, PIPED);
  const sockets = Array.from({ length: 10 }, () => attach(id));
  await Promise.all(sockets.map((socket) => socket.first('attached')));
  const stopped = sockets.slice(0, 2);
  for (const { ws } of stopped) ws.pause();
  await sockets[9]!.write('go\n');
  await Promise.all(sockets.slice(2).map((socket) => socket.end()));
  const text = `${Array.from({ length: count }, (_, at) => at + 1).join('\n')}\n`;
  for (const socket of sockets.slice(2)) t.ok(socket.text() === text);
  for (const { frames } of stopped) t.equal(frames.length, 1);
  for (const { ws } of stopped) ws.resume();
  await Promise.all(stopped.map((socket) => socket.end()));
  for (const socket of stopped) t.ok(socket.text() === text, 'it goes on from the file');
});

t.test('a socket that waits for a program is not taken for a vanished one', async (t) => {
  const impatient = await Daemon.start(t, { env: withShortLimits('http/limits.ts') });
  const gate = new Gate(t);
  const { id } = await impatient.spawn(['sh', '-c', `read -r line <${gate.path}; exec cat`], {}, PIPED);
  const socket = new Attached(impatient, id);
  let pongs = 0;
  socket.ws.on('pong', () => {
    pongs += 1;
  });
  await socket.first('attached');
  const sent = Array.from({ length: 20 }, () => socket.write('x'.repeat(100_000)));
  await eventually(() => pongs >= 4);
  gate.open();
  await Promise.all(sent);
  socket.send({ type: 'eof' });
  await socket.end();
  t.equal(socket.text().length, 2_000_000);
  t.equal(await impatient.stop(), 0);
});

t.test('a slow reader is waited for, and one that reads nothing is disconnected', async (t) => {
  const impatient = await Daemon.start(t, { env: withShortLimits('http/limits.ts') });
  const size = 2 ** 21;
  const { id } = await impatient.spawn(['head', '-c', String(size), '/dev/zero'], {}, PIPED);
  const [slow, stopped] = [new Attached(impatient, id), new Attached(impatient, id)];
  await Promise.all([slow.first('attached'), stopped.first('attached')]);
  let pings = 0;
  slow.ws.on('ping', () => {
    pings += 1;
  });
  stopped.ws.pause();
  slow.ws.on('message', () => {
    slow.ws.pause();
    setTimeout(() => slow.ws.resume(), 300);
  });
  await slow.end();
  t.equal(slow.at.stdout, size);
  t.ok(pings > 2, `${pings} pings`);
  await eventually(async () => /^waitd_subscribers 0$/m.test((await impatient.get('/metrics')).text));
  stopped.ws.resume();
  t.match(await stopped.closed, { code: 1006 });
  t.ok(stopped.at.stdout < size);
  const again = new Attached(impatient, id, { query: `?stdout=${stopped.at.stdout}` });
  await again.end();
  t.equal(stopped.text().length + again.text().length, size);
  t.equal(await impatient.stop(), 0);
});

t.test('what a client has sent before it closes is written', async (t) => {
  const outputOf = async (id: string): Promise<string> => (await daemon.get(`/v1/handles/${id}/stdout`)).text;
  for (const eof of [false, true])
    for (let round = 0; round < 10; round += 1) {
      const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
      const client = new Attached(daemon, id);
      await client.first('attached');
      for (let at = 0; at < 200; at += 1) client.ws.send(Buffer.concat([Buffer.alloc(1), Buffer.alloc(100, 'x')]));
      if (eof) client.ws.send('{"type":"eof"}');
      client.ws.close(1000);
      t.match(await client.closed, { code: 1000 });
      await eventually(async () => (await outputOf(id)).length === 20_000);
      if (!eof) await daemon.write(id, '', '?eof=true');
      t.match((await daemon.waitid(id)).body, { outcome: { exitCode: 0 } });
    }
});

t.test('input of a client that leaves is dropped, and the next client goes on', async (t) => {
  const impatient = await Daemon.start(t, { env: withShortLimits('http/limits.ts') });
  const gate = new Gate(t);
  const { id } = await impatient.spawn(['sh', '-c', `read -r line <${gate.path}; exec cat`], {}, PIPED);
  const socket = new Attached(impatient, id);
  await socket.write('x'.repeat(60_000));
  for (let time = 0; time < 8; time += 1) void socket.write('x'.repeat(60_000));
  const sockets = async (): Promise<number> =>
    Number(/^waitd_subscribers (\d+)/m.exec((await impatient.get('/metrics')).text)![1]);
  t.equal(await sockets(), 1);
  socket.detach();
  await eventually(async () => (await sockets()) === 0);
  const next = new Attached(impatient, id);
  const written = next.write('the next');
  gate.open();
  await written;
  next.send({ type: 'eof' });
  await next.end();
  t.match(next.text(), /^x+the next$/);
  t.ok(next.text().length < 7 * 60_000);
  t.equal(await impatient.stop(), 0);
});

t.test('the rate limit delays frames, and none is lost', async (t) => {
  const clients = { slow: { ...full, quotas: { requestsPerSecond: 20 } } };
  const policed = await startWithPolicy(t, clients);
  const { id } = (await policed.post('/v1/handles', { spawn: { argv: ['cat'], ...PIPED } }, as('slow'))).body;
  const bearer = `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf('slow')).toString('base64url')}`;
  const socket = new Attached(policed, id, { protocols: ['waitd.attach.v1', bearer] });
  await socket.first('attached');
  const lines = Array.from({ length: 60 }, (_, at) => `${at}\n`);
  for (const line of lines) socket.send(Buffer.from(`\0${line}`));
  socket.send({ type: 'eof' });
  await socket.end();
  t.equal(socket.text(), lines.join(''));
  t.equal(await policed.stop(), 0);
});

t.test('an attached socket is one line of the audit', async (t) => {
  const directory = temporaryDirectory(t);
  const audit = join(directory, 'audit.log');
  const audited = await Daemon.start(t, { directory, args: ['--audit', audit] });
  const { id } = await audited.spawn(['sh', '-c', 'cat; exec sleep 1000'], {}, PIPED);
  const socket = new Attached(audited, id);
  await socket.write('a secret');
  await socket.write('another');
  socket.send({ type: 'eof' });
  for (const signal of ['SIGCONT', 15]) socket.send({ type: 'signal', signal });
  await socket.end();
  t.same(await new Attached(audited, id, { query: '?stderr=0' }).refused, { status: 404, errno: 'ENODATA' });
  // biome-ignore lint/suspicious/noExplicitAny: the tests state the expected values
  const lines = (): any[] =>
    readFileSync(audit, 'utf8')
      .split('\n')
      .filter((line) => line.includes('"attach"'))
      .map((line) => JSON.parse(line));
  await eventually(() => lines().length === 2);
  t.match(lines(), [
    { audit: 'attach', handle: id, input: true, accepted: 15, signal: 'SIGCONT,15', result: 'ok' },
    { audit: 'attach', handle: id, result: 'ENODATA' },
  ]);
  t.notMatch(readFileSync(audit, 'utf8'), /secret/);
  t.equal(await audited.stop(), 0);
});

t.test('revoked credentials close the socket with 1008', async (t) => {
  const directory = temporaryDirectory(t);
  const policed = await startWithPolicy(t, { leaving: full }, { directory });
  const { id } = (await policed.post('/v1/handles', { spawn: { argv: ['cat'], ...PIPED } }, as('leaving'))).body;
  const bearer = `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf('leaving')).toString('base64url')}`;
  const socket = new Attached(policed, id, { protocols: ['waitd.attach.v1', bearer] });
  await socket.first('attached');
  writePolicy(join(directory, 'policy.json'), policyOf({ leaving: { ...full, input: false } }));
  await policed.logged('policy reloaded');
  await socket.write('x');
  t.match(await socket.first('error'), { errno: 'EPERM' });
  writePolicy(join(directory, 'policy.json'), policyOf({}));
  t.same(await socket.closed, { code: 1008, reason: 'credentials revoked' });
  await policed.signal(id, 'SIGKILL');
  t.equal(await policed.stop(), 0);
});

t.teardown(() => daemon.stop());
