import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { readComm, readStat } from '../src/kernel/proc.ts';
import { commandLineOf, Daemon, eventually, type RequestOptions, stateOf, withFaults } from './support/harness.ts';

/** Lists processes that a dead daemon created for spawns and that have not executed their programs. */
const abandonedForks = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const stat = readComm(pid) === 'waitd-fork' ? readStat(pid) : null;
      return stat !== null && !commandLineOf(stat.parent).includes('src/main.ts');
    });

const keyed = (key: string): RequestOptions => ({ headers: { 'idempotency-key': key } });

t.test('a request that is repeated with its key has one effect and the same answer', async (t) => {
  const daemon = await Daemon.start(t);
  const body = { spawn: { argv: ['sh', '-c', 'exit 3'] } };
  const first = await daemon.post('/v1/handles', body, keyed('spawn'));
  const { id } = first.body;
  await daemon.post('/v1/poll', { handles: [id] });
  const again = await daemon.post('/v1/handles', body, keyed('spawn'));
  t.equal(again.headers['idempotent-replayed'], 'true');
  t.notOk(first.headers['idempotent-replayed']);
  t.equal(again.status, 201);
  t.equal(again.text, first.text, 'byte for byte');
  t.equal(again.headers.location, first.headers.location);
  t.equal((await daemon.get('/v1/handles')).body.handles.length, 1);

  const waited = await daemon.waitid(id, undefined, keyed('wait'));
  t.equal(waited.status, 200);
  t.equal((await daemon.waitid(id, undefined, keyed('wait'))).text, waited.text, 'a lost status');
  t.match(await daemon.waitid(id), { status: 410 }, 'collected for other keys');

  const live = await daemon.spawn(['sleep', '100']);
  const stop = { signal: 'SIGSTOP' };
  t.equal((await daemon.post(`/v1/handles/${live.id}/signal`, stop, keyed('stop'))).status, 204);
  await eventually(async () => (await daemon.get(`/v1/handles/${live.id}`)).body.state === 'stopped');
  await daemon.signal(live.id, 'SIGCONT');
  const replayed = await daemon.post(`/v1/handles/${live.id}/signal`, stop, keyed('stop'));
  t.match(replayed, { status: 204, headers: { 'idempotent-replayed': 'true' } });
  await eventually(async () => (await daemon.events(live.id)).some(({ event }) => event === 'continued'));
  t.equal((await daemon.get(`/v1/handles/${live.id}`)).body.state, 'running', 'it was not stopped again');
  const ended = await daemon.post(`/v1/handles/${live.id}/terminate`, {}, keyed('end'));
  t.equal((await daemon.post(`/v1/handles/${live.id}/terminate`, {}, keyed('end'))).text, ended.text);
  t.equal(await daemon.stop(), 0);

  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.equal((await heir.post('/v1/handles', body, keyed('spawn'))).text, first.text, 'after a restart too');
  t.equal((await heir.waitid(id, undefined, keyed('wait'))).text, waited.text);
  await heir.request('DELETE', `/v1/handles/${id}`);
  const late = await heir.post('/v1/handles', body, keyed('spawn'));
  t.equal(late.text, first.text, 'a key outlives its handle');
  t.equal(late.headers['idempotent-replayed'], 'true');
  t.match((await heir.get(`/v1/handles/${late.body.id}`)).body, { errno: 'ESTALE' });
  t.equal(await heir.stop(), 0);
});

t.test('a key is bound to client, method, path, query and body', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--insecure-no-auth'] });
  const body = { spawn: { argv: ['sleep', '100'] } };
  const { id } = (await daemon.post('/v1/handles', body, keyed('k'))).body;
  const other = await daemon.spawn(['sleep', '100']);
  await daemon.post(`/v1/handles/${id}/signal`, { signal: 0 }, keyed('s'));
  for (const [path, sent, key] of [
    ['/v1/handles', { spawn: { argv: ['sleep', '101'] } }, 'k'],
    ['/v1/handles', { ...body, nonblocking: true }, 'k'],
    [`/v1/handles/${id}/signal`, { signal: 'SIGKILL' }, 's'],
    [`/v1/handles/${other.id}/signal`, { signal: 0 }, 's'],
    ['/v1/poll', { handles: [id] }, 's'],
  ] as const)
    t.match(await daemon.post(path, sent, keyed(key)), { status: 422, body: { errno: 'EINVAL' } }, path);
  const spaced = await daemon.request('POST', '/v1/handles', {
    body: ` ${JSON.stringify(body, null, 2)} `,
    headers: { 'idempotency-key': 'k', 'content-type': 'application/json' },
  });
  t.equal(spaced.body.id, id, 'whitespace does not matter');
  const stranger = await fetch(`http://127.0.0.1:${daemon.port}/v1/handles`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', 'idempotency-key': 'k' },
  });
  t.not(((await stranger.json()) as { id: string }).id, id, 'another client’s key is another key');
  for (const bad of ['', 'x'.repeat(256), 'caf\u00e9'])
    t.match(await daemon.post('/v1/handles', body, keyed(bad)), { status: 400, body: { errno: 'EINVAL' } });
  t.equal((await daemon.post('/v1/handles', body, keyed('x'.repeat(255)))).status, 201);
  for (const { id: each } of (await daemon.get('/v1/handles')).body.handles) await daemon.signal(each, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

t.test('a request without an effect frees its key', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sleep', '100'], { nonblocking: true });
  t.equal((await daemon.waitid(id, undefined, keyed('k'))).status, 409);
  t.match((await daemon.waitid(id, { options: ['WEXITED', 'WNOHANG'] }, keyed('k'))).body, { siginfo: null });
  t.equal((await daemon.post('/v1/poll', { handles: [id], timeoutMs: 0 }, keyed('k'))).status, 200);
  t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['/nonexistent'] } }, keyed('k'))).status, 422);
  t.equal((await daemon.post('/v1/handles', { nonsense: 1 }, keyed('k'))).status, 400);
  await daemon.signal(id, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [id] });
  const peek = { options: ['WEXITED', 'WNOWAIT'] };
  t.equal((await daemon.waitid(id, peek, keyed('k'))).status, 200);
  t.equal((await daemon.waitid(id, undefined, keyed('k'))).status, 200, 'WNOWAIT collects nothing');
  t.equal((await daemon.waitid(id, undefined, keyed('k'))).headers['idempotent-replayed'], 'true');
  t.equal(await daemon.stop(), 0);
});

t.test('spawns with keys leave no gap among the events, also after a restart', async (t) => {
  const daemon = await Daemon.start(t);
  const spawns = await Promise.all(
    Array.from({ length: 8 }, (_, n) => daemon.post('/v1/handles', { spawn: { argv: ['true'] } }, keyed(`key-${n}`))),
  );
  await daemon.post('/v1/poll', { handles: spawns.map(({ body }) => body.id), until: 'all' });
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory });
  const { events, gap } = (await heir.get('/v1/events?since=0')).body;
  t.equal(gap, null);
  t.same(
    events.map(({ seq }: { seq: number }) => seq),
    Array.from({ length: 24 }, (_, at) => at + 1),
  );
  t.equal(await heir.stop(), 0);
});

t.test('a second request waits for the answer to the first', async (t) => {
  const daemon = await Daemon.start(t);
  const spawns = await Promise.all(
    Array.from({ length: 50 }, () => daemon.post('/v1/handles', { spawn: { argv: ['sleep', '100'] } }, keyed('many'))),
  );
  t.equal(new Set(spawns.map(({ body }) => body.id)).size, 1);
  t.equal(spawns.filter(({ headers }) => headers['idempotent-replayed'] === undefined).length, 1);
  const { id } = spawns[0]!.body;
  const parked = (): Promise<boolean> =>
    daemon.get('/metrics').then(({ text }) => /^waitd_parked_calls 1$/m.test(text));
  const left = new AbortController();
  const first = daemon.waitid(id, undefined, { ...keyed('wait'), signal: left.signal }).catch(() => 'left');
  await eventually(parked);
  const others = Array.from({ length: 10 }, () => daemon.waitid(id, undefined, keyed('wait')));
  left.abort();
  t.equal(await first, 'left', 'the caller of the running request disconnects');
  await eventually(parked);
  await daemon.signal(id, 'SIGKILL');
  const answers = await Promise.all(others);
  t.equal(new Set(answers.map(({ text }) => text)).size, 1, 'another request replaces it, and all get its answer');
  t.match(answers[0], { status: 200, body: { outcome: { signal: 'SIGKILL' } } });
  t.equal(await daemon.stop(), 0);
});

t.test('a request whose caller leaves while it acts is not done again by its repetition', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'runs');
  writeFileSync(file, '');
  const rounds = 40;
  for (let round = 0; round < rounds; round += 1) {
    const argv = ['sh', '-c', `echo ${round} >> ${file}`];
    const body = { spawn: { argv }, ...(round % 2 === 0 && { name: `run-${round}` }) };
    const options = { headers: { ...keyed(`run-${round}`).headers, ...(round % 3 === 0 && { prefer: 'wait=5' }) } };
    const leaving = new AbortController();
    const left = daemon.post('/v1/handles', body, { ...options, signal: leaving.signal }).catch(() => null);
    await setTimeout(round % 5);
    leaving.abort();
    const again = await daemon.post('/v1/handles', body, options);
    t.equal(again.status, 201);
    await left;
    await daemon.waitid(again.body.id);
  }
  const runs = readFileSync(file, 'utf8').trim().split('\n');
  t.equal(runs.length, rounds);
  t.equal(new Set(runs).size, rounds, 'each ran once');
  t.equal(await daemon.stop(), 0);
});

t.test('after a crash in the middle of a spawn, no second process is started', async (t) => {
  for (const [step, argv] of [
    ['die before the spawn', ['sleep', '77']],
    ['die between write and reap', ['sleep', '80']], // the first write: nothing has been released yet
    ['die before the release', ['sleep', '76']],
    ['die after the release', ['sleep', '78']],
    ['die after the release', ['sh', '-c', 'echo >> "$0"; exec sleep 79']],
  ] as const) {
    const fault = join(t.testdir(), 'fault');
    const daemon = await Daemon.start(t, { env: withFaults(fault) });
    const ran = join(daemon.directory, 'ran');
    const goesOn = argv.length > 2; // whether it executes another program
    const spawn = goesOn ? { argv: [...argv, ran], stdout: 'capture' } : { argv };
    const body = { spawn, labels: { a: 'b' } };
    writeFileSync(fault, step);
    await t.rejects(daemon.post('/v1/handles', body, keyed('k')), step);
    await daemon.exited;
    // While a process is an unreaped zombie, the next daemon could still learn its outcome.
    await eventually(() => abandonedForks().length === 0);
    rmSync(fault, { force: true });
    const heir = await Daemon.start(t, { directory: daemon.directory });
    const { body: handle, headers } = await heir.post('/v1/handles', body, keyed('k'));
    t.equal((await heir.get('/v1/handles')).body.handles.length, 1);
    t.match(handle, { labels: { a: 'b' } });
    t.equal((await heir.post('/v1/handles', body, keyed('k'))).headers['idempotent-replayed'], 'true');
    if (step === 'die before the spawn') {
      t.match(handle, { state: 'running', relation: 'child' }, 'nothing was started, so it is started now');
      t.equal((await heir.signal(handle.id, 'SIGKILL')).status, 204);
    } else if (step === 'die after the release') {
      t.match(handle, { state: 'running', relation: 'foreign' }, 'the started process was found');
      t.match(commandLineOf(handle.process.pid), /sleep\0(78|79)/);
      if (goesOn) t.equal(readFileSync(ran, 'utf8'), '\n', 'it ran once');
      t.equal((await heir.signal(handle.id, 'SIGKILL')).status, 204);
    } else {
      // The created process ended with its daemon, and never executed the program.
      t.match(handle, { state: 'exited', outcome: { reason: 'unknown' } }, step);
      await eventually(() => stateOf(handle.process.pid) === null);
      t.equal(headers['idempotent-replayed'], undefined);
    }
    const names = (await heir.events(handle.id)).map(({ event }) => event);
    t.equal(names.filter((name) => name === 'opened').length, 1);
    t.notOk(existsSync(fault));
    t.equal(await heir.stop(), 0);
  }
});

t.test('Prefer: wait on a spawn answers with the outcome, or with the current state after the time', async (t) => {
  const daemon = await Daemon.start(t);
  const spawn = (argv: string[], wait: string): ReturnType<Daemon['post']> =>
    daemon.post('/v1/handles', { spawn: { argv } }, { headers: { prefer: wait } });
  t.match(await spawn(['sh', '-c', 'exit 4'], 'wait=30'), {
    status: 201,
    headers: { 'preference-applied': 'wait=30' },
    body: { state: 'exited', outcome: { exitCode: 4 }, collected: false },
  });
  const running = await spawn(['sleep', '100'], 'wait=0');
  t.match(running, { status: 201, body: { state: 'running', outcome: null } });
  const key = { 'idempotency-key': 'k', prefer: 'wait=100' };
  const parked = daemon.post('/v1/handles', { spawn: { argv: ['sleep', '99'] } }, { headers: key });
  await eventually(async () => /^waitd_parked_calls 1$/m.test((await daemon.get('/metrics')).text));
  await daemon.upgrade();
  const answer = await parked;
  t.match(answer, { status: 201, body: { state: 'running' } }, 'an upgrade answers early, and refuses nothing');
  const again = await daemon.post('/v1/handles', { spawn: { argv: ['sleep', '99'] } }, { headers: key });
  t.equal(again.text, answer.text);
  for (const { body } of [running, answer]) await daemon.signal(body.id, 'SIGKILL');
  t.equal(await daemon.stop(), 0);
});

t.test('--max-keys limits the stored keys, and one client to half of them; a repeat is always answered', async (t) => {
  const daemon = await Daemon.start(t, { args: ['--max-keys', '4'] });
  const body = { spawn: { argv: ['true'] } };
  const first = await daemon.post('/v1/handles', body, keyed('1'));
  await daemon.request('DELETE', `/v1/handles/${first.body.id}`);
  t.equal((await daemon.post('/v1/handles', { spawn: { argv: ['/nonexistent'] } }, keyed('freed'))).status, 422);
  t.equal((await daemon.post('/v1/handles', body, keyed('2'))).status, 201);
  const { head } = (await daemon.get('/v1/node')).body;
  t.match(await daemon.post('/v1/handles', body, keyed('3')), { status: 429, body: { errno: 'EDQUOT' } });
  t.match((await daemon.get(`/v1/events?since=${head}&type=opened`)).body.events, [], 'the request had no effect');
  t.equal((await daemon.post('/v1/handles', body, keyed('1'))).text, first.text);
  t.equal((await daemon.post('/v1/handles', body)).status, 201, 'requests without a key are accepted');
  t.equal(await daemon.stop(), 0);
  const heir = await Daemon.start(t, { directory: daemon.directory, args: ['--max-keys', '4'] });
  t.match(await heir.post('/v1/handles', body, keyed('3')), { status: 429 }, 'after a restart too');
  t.equal(await heir.stop(), 0);
});
