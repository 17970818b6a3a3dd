import { spawn } from 'node:child_process';
import t from 'tap';
import { Attached, type AttachOptions } from './support/attached.ts';
import { Daemon, eventually, Gate, temporaryDirectory } from './support/harness.ts';
import { as, full, startWithPolicy, tokenOf } from './support/policies.ts';
import { random } from './support/random.ts';

const daemon = await Daemon.start(t);
const PIPED = { stdin: 'pipe', stdout: 'capture' };
const CAPTURED = { stdout: 'capture', stderr: 'capture' };
const attach = (id: string, query = '', more: AttachOptions = {}): Attached =>
  new Attached(daemon, id, { query, ...more });
const kill = (id: string): Promise<unknown> => daemon.signal(id, 'SIGKILL');

t.test('a socket carries the input, both streams, the exit and the end', async (t) => {
  const script = 'read -r line; echo "out $line"; echo "err $line" >&2; cat; exit 7';
  const { id } = await daemon.spawn(['sh', '-c', script], { name: 'both' }, { ...PIPED, ...CAPTURED });
  const socket = attach('@both');
  t.match(await socket.first('attached'), {
    handle: { id, name: 'both', state: 'running', outcome: null },
    stdin: 'open',
    stdout: { offset: 0 },
    stderr: { offset: 0 },
  });
  t.equal(socket.ws.protocol, 'waitd.attach.v1');
  await socket.write('hello\nrest');
  socket.send({ type: 'eof' });
  t.match(await socket.first('exited'), { outcome: { reason: 'exited', exitCode: 7 }, rusage: { userUs: Number } });
  await socket.end();
  t.equal(socket.text(), 'out hello\nrest');
  t.equal(socket.text('stderr'), 'err hello\n');
  const again = attach(id);
  await again.end();
  t.equal(again.text(), 'out hello\nrest', 'after the end everything is replayed');
  t.same(
    again.frames.map(({ type }) => type),
    ['attached', 'exited', 'end'],
  );
  t.match(again.frames[0], { handle: { state: 'exited' }, stdin: 'closed' });
});

t.test('without a captured stream and without input it tells of the exit and the end', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000']);
  const socket = attach(id, '', { protocols: [] });
  t.match(await socket.first('attached'), { stdin: 'none', stdout: null, stderr: null });
  t.equal(socket.ws.protocol, '');
  socket.send({ type: 'signal', signal: 'SIGTERM' });
  t.match(await socket.first('exited'), { outcome: { reason: 'killed', signal: 'SIGTERM' } });
  await socket.end();
});

t.test('the exit of a foreign process is told once its outcome is known', async (t) => {
  // Its parent leaves it a zombie until a line comes.
  const parent = spawn('sh', ['-c', 'sleep 1000 & echo $!; read -r line; wait'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const pid = await new Promise<number>((resolve) => parent.stdout.once('data', (data) => resolve(Number(data))));
  const { id, relation } = (await daemon.post('/v1/handles', { open: { pid } })).body;
  t.equal(relation, 'foreign');
  const socket = attach(id);
  t.match(await socket.first('attached'), { stdin: 'none' });
  socket.send({ type: 'signal', signal: 'SIGKILL' });
  await eventually(async () => (await daemon.get(`/v1/handles/${id}`)).body.state === 'exited');
  if ((await daemon.get(`/v1/handles/${id}`)).body.outcome === null) t.equal(socket.frames.length, 1);
  parent.stdin.end('\n');
  t.match(await socket.first('exited'), { rusage: null });
  t.same((await daemon.get(`/v1/handles/${id}`)).body.outcome, socket.frames[1].outcome);
  await socket.end();
  parent.kill();
});

t.test('output goes on at every offset, and nothing comes twice', async (t) => {
  const text = Array.from({ length: 40 }, (_, at) => `${at}\n`).join('');
  const { id } = await daemon.spawn(['seq', '0', '39'], {}, CAPTURED);
  await attach(id).end();
  for (let offset = 0; offset <= text.length; offset += 1) {
    const socket = attach(id, `?stdout=${offset}&stderr=0`);
    await socket.end();
    t.equal(socket.frames[0].stdout.offset, offset);
    t.equal(socket.text(), text.slice(offset), `from ${offset}`);
  }
  const last = attach(id, '?stdout=-1');
  await last.end();
  t.match(last.frames[0], { stdout: { offset: text.length }, stderr: { offset: 0 } });
  t.equal(last.text(), '');
  t.same(await attach(id, `?stdout=${text.length + 1}`).refused, { status: 400, errno: 'EINVAL' });
  t.same(await attach(id, '?stderr=1').refused, { status: 400, errno: 'EINVAL' });
  for (const query of ['?stdout=-2', '?stdout=x', '?stdout=1.5', '?stdout=1&stdout=2', '?input=no', '?nonsense=1'])
    t.same(await attach(id, query).refused, { status: 400, errno: 'EINVAL' }, query);
});

t.test('a socket that comes back again and again gets every byte once', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, PIPED);
  let sent = '';
  let text = '';
  for (let round = 0; round < 100; round += 1) {
    const lines = Array.from({ length: round }, (_, n) => `${round} ${n}\n`).join('');
    sent += `round ${round}\n${lines}`;
    await daemon.write(id, `round ${round}\n${lines}`);
    const socket = attach(id, `?stdout=${text.length}`);
    await socket.until(() => socket.at.stdout > text.length);
    text += socket.text();
    socket.detach();
  }
  await daemon.write(id, '', '?eof=true');
  const last = attach(id, `?stdout=${text.length}`);
  await last.end();
  t.equal(text + last.text(), sent);
});

t.test('with the offset -1 only what comes is sent', async (t) => {
  const gate = new Gate(t);
  const script = `echo before; read -r line <${gate.path}; echo after`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, CAPTURED);
  const first = attach(id);
  await first.until(() => first.text() === 'before\n');
  const socket = attach(id, '?stdout=-1');
  t.match(await socket.first('attached'), { stdout: { offset: 7 } });
  gate.open();
  await Promise.all([socket.end(), first.end()]);
  t.equal(socket.text(), 'after\n');
  t.equal(first.text(), 'before\nafter\n');
});

t.test('the exit is told before the end of the output, which comes when every writer has closed it', async (t) => {
  const gate = new Gate(t);
  const script = `(read -r line <${gate.path}; echo late) & echo early`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, CAPTURED);
  const socket = attach(id);
  t.match(await socket.first('exited'), { outcome: { exitCode: 0 } });
  await socket.until(() => socket.text() === 'early\n');
  t.notOk(socket.frames.some(({ type }) => type === 'end'));
  socket.send({ type: 'signal', signal: 'SIGTERM' });
  t.match(await socket.first('error'), { errno: 'ESRCH' });
  gate.open();
  await socket.end();
  t.equal(socket.text(), 'early\nlate\n');
});

t.test('an attach that races with the exit misses neither output nor exit', async (t) => {
  const before = daemon.descriptors;
  for (let time = 0; time < 200; time += 1) {
    const { id } = await daemon.spawn(['sh', '-c', `echo ${time}; exit ${time}`], {}, CAPTURED);
    const socket = attach(id);
    await socket.end();
    if (socket.text() !== `${time}\n` || socket.frames[1].outcome.exitCode !== time)
      t.fail(`${time}: ${socket.text()} ${JSON.stringify(socket.frames)}`);
    await daemon.request('DELETE', `/v1/handles/${id}`);
  }
  await eventually(() => daemon.descriptors <= before);
  t.pass('and no descriptor is left');
});

t.test('dropped output is a gap, also when the limit overtakes a slow reader', async (t) => {
  const limit = 2 ** 20;
  const limited = await Daemon.start(t, { args: ['--max-output', String(limit)] });
  const count = 3_000_000;
  const { id } = await limited.spawn(['sh', '-c', `read -r line; exec seq -w ${count}`], {}, PIPED);
  const [slow, quick] = [new Attached(limited, id), new Attached(limited, id)];
  await Promise.all([slow.first('attached'), quick.first('attached')]);
  slow.ws.pause();
  await slow.write('go\n');
  await quick.first('end');
  slow.ws.resume();
  await slow.end();
  const late = new Attached(limited, id);
  await late.end();
  const lines = (from: number, size: number): string => {
    const first = Math.floor(from / 8) + 1;
    const last = Math.ceil((from + size) / 8);
    const all = Array.from({ length: last - first + 1 }, (_, at) => `${String(first + at).padStart(7, '0')}\n`).join(
      '',
    );
    return all.slice(from % 8, (from % 8) + size);
  };
  for (const [name, socket] of Object.entries({ slow, quick, late })) {
    const gaps = socket.frames.filter(({ type }) => type === 'gap');
    t.equal(socket.at.stdout, 8 * count, name);
    t.ok(name === 'quick' || gaps.length > 0, `${name}: ${gaps.length} gaps`);
    const missing = gaps.reduce((sum, { from, to }) => sum + to - from, 0);
    const text = socket.text();
    t.equal(text.length + missing, 8 * count, 'every byte was sent or is in a gap');
    // What follows the last gap is what the stream has there.
    const { to } = gaps.at(-1) ?? { to: 0 };
    const tail = text.slice(text.length - (8 * count - to));
    t.ok(tail === lines(to, 8 * count - to), name);
  }
  t.match(
    late.frames.find(({ type }) => type === 'gap'),
    { stream: 'stdout', from: 0 },
  );
  t.ok(late.text().length <= limit + limit / 8 + 2 ** 17);
  t.equal(await limited.stop(), 0);
});

t.test('a closed handle is an error frame, and closes the socket', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, PIPED);
  const { body: other } = await daemon.post('/v1/handles', { dup: id });
  const [socket, onOther] = [attach(id), attach(other.id)];
  await Promise.all([socket.first('attached'), onOther.first('attached')]);
  await daemon.request('DELETE', `/v1/handles/${id}`);
  t.match(await socket.first('error'), { errno: 'ESTALE' });
  t.same(await socket.closed, { code: 1008, reason: 'handle closed' });
  t.same(await attach(id).refused, { status: 410, errno: 'ESTALE' });
  await onOther.write('still here');
  onOther.send({ type: 'eof' });
  await onOther.end();
  t.equal(onOther.text(), 'still here');
});

t.test('what is refused is refused before the upgrade', async (t) => {
  const { id } = await daemon.spawn(['sleep', '1000']);
  t.same(await attach('h_nosuch').refused, { status: 404, errno: 'EBADF' });
  t.same(await attach(id, '?stderr=0').refused, { status: 404, errno: 'ENODATA' });
  t.same(await attach(id, '?stdout=-1').refused, { status: 404, errno: 'ENODATA' });
  t.same(await attach(id, '', { protocols: ['waitd.v1'] }).refused, { status: 400, errno: 'EINVAL' });
  t.match(await daemon.get(`/v1/handles/${id}/attach`), {
    status: 426,
    headers: { upgrade: 'websocket' },
    body: { errno: 'EPROTO', detail: /lacks Upgrade: websocket/ },
  });
  t.match(await daemon.post(`/v1/handles/${id}/attach`), { status: 405, headers: { allow: 'GET, HEAD' } });
  await kill(id);
});

t.test('rights: an observer attaches without input, and may do what its other rights permit', async (t) => {
  const clients = {
    owner: full,
    observer: { observe: true },
    mute: { ...full, input: false },
    limited: { ...full, quotas: { sockets: 1 } },
  };
  const policed = await startWithPolicy(t, clients);
  const make = async (name: string): Promise<string> =>
    (await policed.post('/v1/handles', { spawn: { argv: ['cat'], ...PIPED } }, as(name))).body.id;
  const by = (name: string, id: string, query = ''): Attached => {
    const bearer = `base64url.bearer.authorization.waitd.${Buffer.from(tokenOf(name)).toString('base64url')}`;
    return new Attached(policed, id, { query, protocols: ['waitd.attach.v1', bearer] });
  };
  const id = await make('owner');
  t.same(await by('observer', id).refused, { status: 403, errno: 'EPERM' });
  t.same(await by('mute', id).refused, { status: 404, errno: 'EBADF' });
  const observer = by('observer', id, '?input=false');
  await observer.first('attached');
  const refused = [
    Buffer.from('\0x'),
    { type: 'eof' },
    { type: 'resize', rows: 1, cols: 1 },
    { type: 'signal', signal: 9 },
  ];
  for (const frame of refused) observer.send(frame);
  await observer.until(() => observer.frames.length === 5);
  t.ok(
    observer.frames.slice(1).every(({ errno }) => errno === 'EPERM'),
    JSON.stringify(observer.frames),
  );
  const silent = by('owner', id, '?input=false');
  await silent.first('attached');
  silent.send(Buffer.from('\0x'));
  t.match(await silent.first('error'), { errno: 'EPERM', detail: /input=false/ });

  const own = await make('mute');
  t.same(await by('mute', own).refused, { status: 403, errno: 'EPERM' });
  const watching = by('mute', own, '?input=false');
  await watching.first('attached');
  watching.send({ type: 'signal', signal: 'SIGTERM' });
  await watching.end();

  const one = await make('limited');
  const socket = by('limited', one);
  await socket.first('attached');
  t.same(await by('limited', one).refused, { status: 429, errno: 'EDQUOT' });
  socket.detach();
  await eventually(async () => {
    const next = by('limited', one);
    const isOpen = await Promise.race([next.first('attached').then(() => true), next.refused.then(() => false)]);
    next.detach();
    return isOpen;
  });
  const owner = by('owner', id);
  await owner.write('all of it');
  owner.send({ type: 'eof' });
  await Promise.all([owner, observer, silent].map((each) => each.end()));
  t.equal(observer.text(), 'all of it');
  await policed.signal(one, 'SIGKILL');
  t.equal(await policed.stop(), 0);
});

t.test('a stop closes sockets with 1001, and an upgrade with 1012', async (t) => {
  const own = await Daemon.start(t);
  const { id } = await own.spawn(['cat'], {}, PIPED);
  const first = new Attached(own, id);
  await first.write('one ');
  await first.until(() => first.text() === 'one ');
  await own.upgrade();
  t.same(await first.closed, { code: 1012, reason: 'restarting, come back' });
  const second = new Attached(own, id, { query: `?stdout=${first.at.stdout}` });
  await second.write('two');
  await second.until(() => second.text() === 'two');
  second.send({ type: 'eof' });
  await second.end();
  const { id: left } = await own.spawn(['sleep', '1000']);
  const third = new Attached(own, left);
  await third.first('attached');
  await own.signal(left, 'SIGKILL');
  await third.end();
  const { id: last } = await own.spawn(['sh', '-c', 'exec sleep 1000'], {}, PIPED);
  const fourth = new Attached(own, last);
  await fourth.first('attached');
  const pid = (await own.get(`/v1/handles/${last}`)).body.process.pid;
  t.equal(await own.stop(), 0);
  t.same(await fourth.closed, { code: 1001, reason: 'shutting down' });
  process.kill(pid, 'SIGKILL');
});

t.test('upgrades in the middle of the output lose nothing to a client that comes back', async (t) => {
  const own = await Daemon.start(t);
  // With a timeout `read` could take half of the line; with 0 it only looks.
  const script = 'n=0; until read -t 0; do echo line $n; n=$((n+1)); sleep 0.001; done; read -r last; echo "$last $n"';
  const { id } = await own.spawn(['bash', '-c', script], {}, PIPED);
  let at = 0;
  let text = '';
  const follow = async (): Promise<void> => {
    for (;;) {
      const socket = new Attached(own, id, { query: `?stdout=${at}` });
      const { code } = await socket.closed;
      text += socket.text();
      at = Math.max(at, socket.at.stdout);
      if (code === 1000) return;
      // A connection that came in the middle of an upgrade was never attached.
      if (socket.frames.length > 0) t.equal(code, 1012);
    }
  };
  const followed = follow();
  for (let time = 0; time < 2; time += 1) await own.upgrade();
  await own.write(id, 'end\n', '?eof=true');
  await followed;
  const count = Number(/end (\d+)\n$/.exec(text)![1]);
  t.ok(count > 100);
  t.equal(text, `${Array.from({ length: count }, (_, n) => `line ${n}\n`).join('')}end ${count}\n`);
  t.equal(await own.stop(), 0);
});

t.test('a client that leaves at any moment leaves nothing behind', async (t) => {
  const { id } = await daemon.spawn(['sh', '-c', 'seq 100000; exec cat'], {}, { ...PIPED, ...CAPTURED });
  const subscribers = async (): Promise<number> =>
    Number(/^waitd_subscribers (\d+)$/m.exec((await daemon.get('/metrics')).text)![1]);
  await eventually(async () => (await subscribers()) === 0);
  const before = daemon.descriptors;
  for (let round = 0; round < 20; round += 1)
    await Promise.all(
      Array.from({ length: 20 }, async (_, at) => {
        const socket = attach(id, '', { keeps: false });
        for (let turn = 0; turn < at * round; turn += 1) await new Promise((resolve) => setImmediate(resolve));
        if (round % 2 === 0 && socket.ws.readyState === socket.ws.OPEN) socket.send(Buffer.alloc(50_000));
        socket.detach();
        await socket.closed;
      }),
    );
  await eventually(async () => (await subscribers()) === 0);
  await eventually(() => daemon.descriptors <= before);
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
  t.pass();
});

t.test('after a crash of the daemon a client goes on where it was', async (t) => {
  const directory = temporaryDirectory(t);
  const crashed = await Daemon.start(t, { directory });
  const { id } = await crashed.spawn(['sh', '-c', 'cat; echo after the input'], {}, PIPED);
  const socket = new Attached(crashed, id);
  await socket.write('before ');
  await socket.until(() => socket.text() === 'before ');
  await crashed.kill();
  t.match(await socket.closed, { code: 1006 });
  const next = await Daemon.start(t, { directory });
  const again = new Attached(next, id, { query: `?stdout=${socket.at.stdout}` });
  await again.end();
  t.match(again.frames[0], { stdin: 'closed', stdout: { offset: 7 } });
  t.equal(again.text(), 'after the input\n');
  t.equal(await next.stop(), 0);
});

t.test('frames of any kind neither end the daemon nor get an answer that is not in the contract', async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const next = random(seed);
  const upTo = (most: number): number => Math.floor(next() * most);
  const pick = <T>(from: readonly T[]): T => from[upTo(from.length)]!;
  const values = [
    'resize',
    'eof',
    'signal',
    'SIGCONT',
    'SIGWINCH',
    -1,
    0,
    1,
    28,
    2 ** 31,
    1.5,
    null,
    true,
    [],
    {},
    'x',
  ];
  const names = ['type', 'rows', 'cols', 'signal', '__proto__', 'constructor'];
  const bytes = (): Buffer => Buffer.from(Array.from({ length: upTo(40) }, () => upTo(256)));
  const frame = (): unknown => {
    const kind = upTo(5);
    if (kind === 0) return bytes();
    if (kind === 1) return Buffer.concat([Buffer.alloc(1), bytes()]);
    if (kind === 2) return bytes().toString('latin1');
    const given = Object.fromEntries(Array.from({ length: upTo(4) }, () => [pick(names), pick(values)]));
    return kind === 3 ? given : { type: pick(['resize', 'eof', 'signal']), ...given };
  };
  for (let round = 0; round < 30; round += 1) {
    const { id } = await daemon.spawn(['sh', '-c', 'trap "" CONT WINCH; cat'], {}, PIPED);
    const socket = attach(id, pick(['', '?input=false', '?stdout=-1']));
    await socket.first('attached');
    for (let time = upTo(60); time > 0; time -= 1) socket.send(frame());
    if (upTo(2) === 0) socket.detach();
    else {
      // A frame that is always refused, so that all before it were taken.
      const marker = pick([Buffer.from('y'), '{"type":"marker"}']);
      const seen = socket.frames.length;
      socket.send(marker);
      await socket.until(() => socket.frames.length > seen && socket.frames.at(-1).errno === 'EINVAL');
    }
    await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
    socket.detach();
  }
  t.equal((await daemon.get('/livez')).status, 200);
});

t.teardown(() => daemon.stop());
