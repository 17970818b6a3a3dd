import { once } from 'node:events';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Daemon, eventually, Gate, type Response, stateOf } from './support/harness.ts';

const capture = { stdout: 'capture', stderr: 'capture' };
const tail = (text: string, offset = 0, size = offset + Buffer.byteLength(text)): object => ({
  text,
  offset,
  size,
  truncated: offset > 0,
});
const withLongGrace = { NODE_OPTIONS: `--import ${join(import.meta.dirname, 'support/long-grace.ts')}` };

/** Starts a program and waits for its end, in one request. */
function run(daemon: Daemon, argv: string[], output: number, more: object = capture): Promise<Response> {
  const headers = { prefer: 'wait=600' };
  return daemon.post(`/v1/handles?output=${output}`, { spawn: { argv, ...more } }, { headers });
}

/**
 * A script that ends once it has left a process in a session of its own, where terminate does not reach it. That keeps the output open
 * until the gate opens.
 */
const outlived = (gate: Gate, first = 'one'): string[] => {
  const begun = `${gate.path}.${first}`;
  const writer = `echo ${first}; : >${begun}; read -r line < ${gate.path}; echo two`;
  return ['sh', '-c', `setsid sh -c '${writer}' & until [ -e ${begun} ]; do sleep 0.01; done; exit 0`];
};

/** Waits until the daemon has so many parked calls. */
const parked = (daemon: Daemon, count: number): Promise<void> =>
  eventually(async () => new RegExp(`^waitd_parked_calls ${count}$`, 'm').test((await daemon.get('/metrics')).text));

t.test('one request runs a program and tells its outcome and output', async (t) => {
  const daemon = await Daemon.start(t);
  const script = 'echo out; echo err >&2; exit 3';
  const { status, body, headers } = await run(daemon, ['sh', '-c', script], 100);
  t.equal(status, 201);
  t.equal(headers['preference-applied'], 'wait=600');
  t.match(body, { state: 'exited', outcome: { exitCode: 3 }, collected: false });
  const whole = { stdout: tail('out\n'), stderr: tail('err\n'), complete: true };
  t.same(body.output, whole);
  const url = `/v1/handles/${body.id}`;
  t.same((await daemon.get(`${url}?output=100`)).body.output, whole, 'read again');
  t.notOk('output' in (await daemon.get(url)).body, 'not without the parameter');
  t.same((await daemon.get(`${url}?output=2`)).body.output, {
    stdout: tail('t\n', 2, 4),
    stderr: tail('r\n', 2, 4),
    complete: true,
  });
  const { body: twin } = await daemon.post('/v1/handles', { dup: body.id });
  t.same((await daemon.get(`/v1/handles/${twin.id}?output=100`)).body.output, whole, 'a dup shares it');
  const peek = await daemon.post(`${url}/waitid?output=3`, { options: ['WEXITED', 'WNOWAIT'] });
  t.match(peek.body, { siginfo: { status: 3 }, output: { stdout: tail('ut\n', 1, 4), complete: true } });
  t.same((await daemon.post(`${url}/terminate?output=100`)).body.output, whole);
  const taken = await daemon.post(`${url}/waitid?output=100`);
  t.match(taken.body, { siginfo: { status: 3 }, outcome: { exitCode: 3 } });
  t.same(taken.body.output, whole);
  t.match(await daemon.post(`${url}/waitid?output=100`), { status: 410, body: { errno: 'ECHILD' } });
  t.notOk('output' in (await daemon.post(`${url}/waitid?output=100`)).body, 'a problem has none');
  t.notOk('output' in (await daemon.get('/v1/handles')).body.handles[0]);
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.same((await heir.get(`${url}?output=100`)).body.output, whole, 'after a restart');
  t.equal(await heir.stop(), 0);
});

t.test(
  'a stream that was not captured is null, and only a spawn, a handle and a wait take the parameter',
  async (t) => {
    const daemon = await Daemon.start(t);
    const { body } = await run(daemon, ['echo', 'x'], 1, { stdout: 'capture' });
    t.same(body.output, { stdout: tail('\n', 1, 2), stderr: null, complete: true });
    const none = await run(daemon, ['echo', 'x'], 1, {});
    t.same(none.body.output, { stdout: null, stderr: null, complete: true }, 'nothing can follow');
    const { id, process } = await daemon.spawn(['sleep', '1000'], {}, capture);
    const { body: opened } = await daemon.post('/v1/handles', { open: { pid: process.pid } });
    t.same(
      (await daemon.get(`/v1/handles/${opened.id}?output=1`)).body.output,
      { stdout: null, stderr: null, complete: true },
      'the output belongs to another description',
    );
    for (const given of [{ dup: id }, { open: { pid: process.pid } }])
      t.match(await daemon.post('/v1/handles?output=1', given), { status: 400, body: { errno: 'EINVAL' } });
    t.equal((await daemon.get('/v1/handles')).body.handles.length, 4, 'they made nothing');
    for (const value of ['0', '1048577', '-1', 'x', '', '1.5', '1&output=2'])
      for (const [method, path] of [
        ['GET', `/v1/handles/${id}`],
        ['POST', `/v1/handles/${id}/waitid`],
        ['POST', `/v1/handles/${id}/terminate`],
      ] as const)
        t.match(await daemon.request(method, `${path}?output=${value}`), { status: 400, body: { errno: 'EINVAL' } });
    for (const [method, path, given] of [
      ['GET', '/v1/handles'],
      ['PATCH', `/v1/handles/${id}`, {}],
      ['POST', `/v1/handles/${id}/signal`, { signal: 0 }],
      ['POST', '/v1/poll', { handles: [id] }],
    ] as const)
      t.match(await daemon.request(method, `${path}?output=1`, given && { body: given }), { status: 400 });
    t.match((await daemon.get(`/v1/handles/${id}?output=1048576`)).body.output, { stdout: tail(''), complete: false });
    t.equal((await daemon.request('HEAD', `/v1/handles/${id}?output=1048576`)).status, 200);
    t.equal(await daemon.stop(), 0);
  },
);

t.test('exactly the last bytes, as text wherever characters end, else in Base64', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'in');
  const samples = fc.sample(fc.string({ unit: 'binary', minLength: 3, maxLength: 20 }), { numRuns: 8, seed: 7 });
  for (const text of ['ab', ...samples]) {
    writeFileSync(file, text);
    const size = Buffer.byteLength(text);
    const { body } = await run(daemon, ['cat', file], size + 1);
    t.same(body.output, { stdout: tail(text), stderr: tail(''), complete: true });
    for (let most = 1; most <= size; most += 1) {
      const { stdout } = (await daemon.get(`/v1/handles/${body.id}?output=${most}`)).body.output;
      let at = 0;
      for (const character of text) if (at < size - most) at += Buffer.byteLength(character);
      t.same(stdout, tail(Buffer.from(text).toString('utf8', at), at, size), `${most} of ${JSON.stringify(text)}`);
    }
  }
  for (const bytes of [Buffer.from([0xff]), Buffer.from('\u00e9', 'latin1'), Buffer.from('abc\u20ac').subarray(0, 5)]) {
    writeFileSync(file, bytes);
    const { stdout } = (await run(daemon, ['cat', file], 100)).body.output;
    t.same(stdout, { base64: bytes.toString('base64'), offset: 0, size: bytes.length, truncated: false });
  }
  for (const [length, most] of [
    [1_048_576, 1_048_576],
    [1_048_577, 1_048_576],
    [65_537, 65_536],
  ] as const) {
    writeFileSync(file, Buffer.alloc(length, 'x'));
    const { stdout } = (await run(daemon, ['cat', file], most)).body.output;
    t.ok(stdout.text === 'x'.repeat(most), String(length));
    t.match(stdout, { offset: length - most, size: length, truncated: length > most });
  }
  t.equal(await daemon.stop(), 0);
});

t.test('a character that is not complete yet comes later', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const script = `printf 'a\\342\\202'; read -r line < ${gate.path}; printf '\\254b'`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { stdout: 'capture' });
  const read = async (most: number): Promise<{ stdout: { size: number } }> =>
    (await daemon.get(`/v1/handles/${id}?output=${most}`)).body.output;
  await eventually(async () => (await read(1)).stdout.size === 3);
  t.same(await read(100), { stdout: tail('a', 0, 3), stderr: null, complete: false });
  t.same(await read(2), { stdout: tail('', 1, 3), stderr: null, complete: false });
  t.same(await read(1), { stdout: tail('', 1, 3), stderr: null, complete: false }, 'to be read from its first byte on');
  gate.open();
  await daemon.waitid(id);
  await eventually(async () => (await daemon.events(id)).some(({ event }) => event === 'output'));
  t.same(await read(100), { stdout: tail('a\u20acb'), stderr: null, complete: true });
  t.equal(await daemon.stop(), 0);
});

t.test('waits without an event have the output so far', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const script = `echo begin; read -r line < ${gate.path}`;
  const { id } = await daemon.spawn(['sh', '-c', script], { nonblocking: true }, { stdout: 'capture' });
  const url = `/v1/handles/${id}/waitid?output=10`;
  await eventually(async () => (await daemon.get(`/v1/handles/${id}?output=10`)).body.output.stdout.size === 6);
  const output = { stdout: tail('begin\n'), stderr: null, complete: false };
  const nohang = await daemon.post(url, { options: ['WEXITED', 'WNOHANG'] });
  t.match(nohang.body, { siginfo: null, output });
  t.match(await daemon.post(url), { status: 409, body: { errno: 'EAGAIN' } });
  const async = await daemon.post(url, {}, { headers: { prefer: 'respond-async' } });
  t.match(async, { status: 202, body: { siginfo: null, output, retry: { afterMs: 250 } } });
  await daemon.request('PATCH', `/v1/handles/${id}`, { body: { nonblocking: false } });
  t.match((await daemon.post(url, { timeoutMs: 1 })).body, { siginfo: null, timedOut: true, output });
  const begun = await daemon.post('/v1/handles?output=10', { spawn: { argv: ['sleep', '1000'], ...capture } });
  t.match(begun, { status: 201, body: { state: 'running', output: { stdout: tail(''), complete: false } } });
  const stopped = daemon.post(url, { options: ['WSTOPPED'] });
  await parked(daemon, 1);
  await daemon.signal(id, 'SIGSTOP');
  t.match((await stopped).body, { siginfo: { code: 'CLD_STOPPED' }, output });
  t.match((await daemon.post(url, { options: ['WSTOPPED', 'WNOHANG'] })).body, { siginfo: null }, 'it was read');
  await daemon.signal(id, 'SIGCONT');
  const ended = daemon.post(url);
  await parked(daemon, 1);
  gate.open();
  t.match((await ended).body, { siginfo: { status: 0 }, output: { ...output, complete: true } });
  t.equal(await daemon.stop(), 0);
});

t.test('a call that waits for nothing does not wait for the end of the output either', async (t) => {
  const daemon = await Daemon.start(t, { env: withLongGrace });
  const script = 'echo begin; sleep 1000 & exit 3';
  const { id, process } = await daemon.spawn(['sh', '-c', script], { nonblocking: true }, { stdout: 'capture' });
  await daemon.post('/v1/poll', { handles: [id] });
  const url = `/v1/handles/${id}/waitid?output=10`;
  const output = { stdout: tail('begin\n'), complete: false };
  t.match((await daemon.post(url, { options: ['WEXITED', 'WNOWAIT'] })).body, { siginfo: { status: 3 }, output });
  await daemon.request('PATCH', `/v1/handles/${id}`, { body: { nonblocking: false } });
  t.match((await daemon.post(url, { options: ['WEXITED', 'WNOHANG'] })).body, { siginfo: { status: 3 }, output });
  globalThis.process.kill(-process.pid, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

t.test('killed with output on its way, nothing of it is missing', async (t) => {
  const daemon = await Daemon.start(t);
  const line = 'waitd 0123456789\n';
  for (let round = 0; round < 60; round += 1) {
    const { id } = await daemon.spawn(['yes', line.trimEnd()], {}, { stdout: 'capture' });
    const url = `/v1/handles/${id}`;
    if (round % 2 === 0)
      await eventually(async () => (await daemon.get(`${url}?output=1`)).body.output.stdout.size > 0);
    const wait = daemon.post(`${url}/${round % 3 === 0 ? 'terminate' : 'waitid'}?output=1048576`);
    await daemon.signal(id, 'SIGKILL');
    const { body } = await wait;
    const { stdout, complete } = body.output;
    const { headers, text } = await daemon.get(`${url}/stdout`, { headers: { range: 'bytes=-1048576' } });
    // The output of a busy disk may take longer than the daemon waits.
    const whole = Number(headers['content-range']?.split('/')[1] ?? 0);
    if (!complete) t.comment(`not complete in round ${round}`);
    if (!complete || (stdout.size === whole && stdout.text === (whole === 0 ? '' : text))) continue;
    t.fail(`round ${round}: ${stdout.size} of ${whole}`);
    break;
  }
  t.equal(await daemon.stop(), 0);
});

t.test('writers that outlive the process delay the answer for a short time only', async (t) => {
  const daemon = await Daemon.start(t);
  const gate = new Gate(t);
  const { body } = await run(daemon, outlived(gate), 100);
  const early = { stdout: tail('one\n'), stderr: tail(''), complete: false };
  t.same(body.output, early);
  const url = `/v1/handles/${body.id}`;
  t.same((await daemon.post(`${url}/terminate?output=100`, { graceMs: 600_000 })).body.output.complete, false);
  const peek = await daemon.post(`${url}/waitid?output=100`, { options: ['WEXITED', 'WNOWAIT'] });
  t.same(peek.body.output.complete, false);
  t.equal(await daemon.stop(), 0);
});

t.test('an answer waits until the output has ended', async (t) => {
  const daemon = await Daemon.start(t, { env: withLongGrace });
  const gate = new Gate(t);
  const spawned = run(daemon, outlived(gate), 100);
  await eventually(async () => (await daemon.get('/v1/handles?state=exited')).body.handles.length === 1);
  const { id } = (await daemon.get('/v1/handles')).body.handles[0];
  const url = `/v1/handles/${id}`;
  const early = { stdout: tail('one\n'), stderr: tail(''), complete: false };
  t.same((await daemon.get(`${url}?output=100`)).body.output, early, 'a read waits for nothing');
  const timed = await daemon.post(`${url}/waitid?output=100`, { options: ['WEXITED', 'WNOWAIT'], timeoutMs: 1 });
  t.match(timed.body, { siginfo: { status: 0 }, output: early }, 'the time of the call is over');
  t.notOk('timedOut' in timed.body, 'but the process has ended');
  const ended = [
    spawned,
    daemon.post(`${url}/terminate?output=100`, { graceMs: 600_000 }),
    daemon.post(`${url}/waitid?output=100`),
  ];
  await parked(daemon, 3);
  gate.open();
  for (const { body } of await Promise.all(ended))
    t.same(body.output, { stdout: tail('one\ntwo\n'), stderr: tail(''), complete: true });
  t.equal((await daemon.get(url)).body.collected, true);
  t.equal(await daemon.stop(), 0);
});

t.test('whoever leaves while the output ends collects nothing, and one wait collects', async (t) => {
  const daemon = await Daemon.start(t, { env: withLongGrace });
  const gate = new Gate(t);
  const { id } = await daemon.spawn(outlived(gate), {}, capture);
  const url = `/v1/handles/${id}/waitid?output=100`;
  const left = new AbortController();
  const leaver = daemon.post(url, {}, { signal: left.signal }).catch(() => 'left');
  await parked(daemon, 1);
  t.equal((await daemon.get(`/v1/handles/${id}`)).body.collected, false);
  left.abort();
  t.equal(await leaver, 'left');
  await parked(daemon, 0);
  t.equal((await daemon.get(`/v1/handles/${id}`)).body.collected, false);
  const stays = [daemon.post(url), daemon.post(url)];
  await parked(daemon, 2);
  t.match((await daemon.waitid(id)).body, { siginfo: { status: 0 } }, 'a wait without output waits for none');
  gate.open();
  for (const answer of await Promise.all(stays)) t.match(answer, { status: 410, body: { errno: 'ECHILD' } });
  t.equal(await daemon.stop(), 0);
});

t.test('an upgrade refuses a wait for output, and collects nothing', async (t) => {
  const daemon = await Daemon.start(t, { env: withLongGrace });
  const gate = new Gate(t);
  const { id } = await daemon.spawn(outlived(gate), {}, capture);
  const url = `/v1/handles/${id}`;
  await daemon.post('/v1/poll', { handles: [id] });
  const waits = [
    daemon.post(`${url}/waitid?output=100`),
    daemon.post(`${url}/terminate?output=100`, { graceMs: 600_000 }),
  ];
  const spawned = run(daemon, outlived(gate, 'zwei'), 100);
  await parked(daemon, 3);
  await daemon.upgrade();
  for (const answer of await Promise.all(waits)) t.match(answer, { status: 503, body: { errno: 'ESHUTDOWN' } });
  t.match(await spawned, { status: 201, body: { output: { stdout: tail('zwei\n'), complete: false } } });
  t.equal((await daemon.get(url)).body.collected, false);
  const again = daemon.post(`${url}/waitid?output=100`);
  await parked(daemon, 1);
  gate.open();
  gate.open();
  t.match((await again).body, { siginfo: { status: 0 }, output: { stdout: tail('one\ntwo\n'), complete: true } });
  t.equal(await daemon.stop(), 0);
});

t.test('a closed handle has no output, and a wait on it still collects', async (t) => {
  const daemon = await Daemon.start(t, { env: withLongGrace });
  const gate = new Gate(t);
  const { id } = await daemon.spawn(outlived(gate), {}, capture);
  const wait = daemon.post(`/v1/handles/${id}/waitid?output=100`);
  await parked(daemon, 1);
  await daemon.request('DELETE', `/v1/handles/${id}`);
  gate.open();
  t.match((await wait).body, { siginfo: { status: 0 }, output: { stdout: null, stderr: null, complete: false } });
  t.equal(await daemon.stop(), 0);
});

t.test('an answer that is given again has the output as it is then', async (t) => {
  const daemon = await Daemon.start(t);
  const keyed = (key: string): object => ({ headers: { 'idempotency-key': key, prefer: 'wait=600' } });
  const file = join(daemon.directory, 'in');
  writeFileSync(file, Buffer.alloc(1_000_000, 'x'));
  const spawn = { spawn: { argv: ['cat', file], stdout: 'capture' } };
  const first = await daemon.post('/v1/handles?output=1048576', spawn, keyed('spawn'));
  t.match(first, { status: 201, body: { output: { stdout: { size: 1_000_000 }, complete: true } } });
  const url = `/v1/handles/${first.body.id}`;
  const posts = {
    spawn: ['/v1/handles?output=1048576', spawn],
    end: [`${url}/terminate?output=1048576`, { graceMs: 1 }],
    wait: [`${url}/waitid?output=1048576`, {}],
  } as const;
  const answers = new Map<string, Response>();
  for (const [key, [path, body]] of Object.entries(posts)) {
    answers.set(key, await daemon.post(path, body, keyed(key)));
    const again = await daemon.post(path, body, keyed(key));
    t.equal(again.headers['idempotent-replayed'], 'true', key);
    t.same(again.body, answers.get(key)!.body, key);
    t.match(again.body.output, { stdout: { size: 1_000_000 }, complete: true }, key);
  }
  t.equal(await daemon.stop(), 0);
  const journal = join(daemon.directory, 'state');
  const sizes = readdirSync(journal, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => statSync(join(journal, name)).size);
  t.ok(Math.max(...sizes) < 1_000_000, 'the journal has no output');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.same((await heir.post(...posts.wait, keyed('wait'))).body, answers.get('wait')!.body, 'after a restart');
  await heir.request('DELETE', url);
  const late = (await heir.post(...posts.wait, keyed('wait'))).body;
  const gone = { stdout: null, stderr: null, complete: false };
  t.same(late, { ...answers.get('wait')!.body, output: gone }, 'a closed handle has no output any more');
  t.equal(await heir.stop(), 0);
});

const residentMiB = ({ pid }: Daemon): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

t.test(
  'many answers from a large output take little memory, and a caller that reads none delays no other',
  async (t) => {
    const daemon = await Daemon.start(t, { args: ['--max-output', String(200 << 20)] });
    const total = 100 << 20;
    const script = `head -c ${total} /dev/zero | tr '\\0' x`;
    const { id } = (await run(daemon, ['sh', '-c', script], 10)).body;
    const path = `/v1/handles/${id}?output=1048576`;
    const read = async (): Promise<void> => {
      const { stdout, complete } = (await daemon.get(path)).body.output;
      if (stdout.text.length !== 1_048_576 || stdout.size !== total || !complete)
        throw new Error(JSON.stringify(stdout));
    };
    await read();
    // As many as the daemon holds at a time.
    const silent = Array.from({ length: 4 }, () => connect(daemon.socket));
    for (const socket of silent) socket.pause().write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const before = residentMiB(daemon);
    await Promise.all(Array.from({ length: 100 }, read));
    const more = residentMiB(daemon) - before;
    // All at once they take some 400 MiB. What V8 has not collected yet counts too.
    t.ok(more < 240, `${more} MiB more`);
    for (const socket of silent) {
      socket.destroy();
      await once(socket, 'close');
    }
    t.equal(await daemon.stop(), 0);
  },
);

t.test('the newest bytes that are kept, while more are written', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--max-output', '65536'] });
  const { id, process } = await daemon.spawn(
    ['sh', '-c', 'yes waitd | head -c 60000000; exec sleep 1000'],
    {},
    capture,
  );
  const lines = 'waitd\n'.repeat(200_000);
  let size = 0;
  while (size < 60_000_000) {
    const { stdout } = (await daemon.get(`/v1/handles/${id}?output=1048576`)).body.output;
    size = stdout.size;
    const end = stdout.offset + stdout.text.length;
    if (stdout.text !== lines.slice(stdout.offset % 6, (stdout.offset % 6) + stdout.text.length) || end !== size)
      t.fail(`at ${stdout.offset}: ${JSON.stringify(stdout.text.slice(0, 20))}`);
  }
  const { stdout } = (await daemon.get(`/v1/handles/${id}?output=1048576`)).body.output;
  t.ok(stdout.offset > 0 && stdout.truncated);
  t.ok(stdout.text.length >= 65_536);
  await daemon.signal(id, 'SIGKILL');
  await daemon.waitid(id);
  t.equal(stateOf(process.pid), null);
  t.equal(await daemon.stop(), 0);
});
