import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { Daemon, eventually, stateOf, withClocks } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';

const daemon = await Daemon.start(t);

const HOUR = 3_600_000;
const spawn = (more: object, argv = ['sleep', '60']): object => ({ spawn: { argv, ...more } });
/** A program that says when it is ready and ignores SIGTERM. */
const deaf = (file: string): string[] => ['sh', '-c', `trap "" TERM; touch ${file}; while :; do sleep 0.05; done`];

const patch = (id: string, body: object, on = daemon) => on.request('PATCH', `/v1/handles/${id}`, { body });

t.test('a timeout ends the process, and its outcome says so', async (t) => {
  const { body } = await daemon.post('/v1/handles', spawn({ timeout: { afterMs: 50 } }));
  t.same(body.timeout, { afterMs: 50, graceMs: 5000 }, 'the grace has a default');
  const waited = (await daemon.waitid(body.id)).body;
  t.same(waited.outcome, { reason: 'killed', signal: 'SIGTERM', timedOut: true });
  t.same((await daemon.get(`/v1/handles/${body.id}`)).body.outcome, waited.outcome);
  const exited = (await daemon.events(body.id)).find(({ event }) => event === 'exited');
  t.same(exited.outcome, waited.outcome);
});

t.test(
  'a process that ignores SIGTERM is killed after the grace, and one that exits keeps its exit code',
  async (t) => {
    const file = join(daemon.directory, 'deaf');
    const killed = await daemon.spawn(deaf(file), {}, { timeout: { afterMs: 300, graceMs: 100 } });
    const polite = ['sh', '-c', 'trap "exit 3" TERM; while :; do sleep 0.05; done'];
    const exits = await daemon.spawn(polite, {}, { timeout: { afterMs: 300, graceMs: 60_000 } });
    t.same((await daemon.waitid(killed.id)).body.outcome, { reason: 'killed', signal: 'SIGKILL', timedOut: true });
    t.same((await daemon.waitid(exits.id)).body.outcome, { reason: 'exited', exitCode: 3, timedOut: true });
  },
);

t.test('the group is ended with its leader, and a stopped process too', async (t) => {
  const script = 'sleep 60 & echo $!; wait';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { stdout: 'capture', timeout: { afterMs: 200 } });
  const stopped = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 200 } });
  await daemon.signal(stopped.id, 'SIGSTOP');
  t.match((await daemon.waitid(id)).body.outcome, { signal: 'SIGTERM', timedOut: true });
  t.match((await daemon.waitid(stopped.id)).body.outcome, { signal: 'SIGTERM', timedOut: true });
  const member = Number((await daemon.get(`/v1/handles/${id}/stdout?follow=1`)).text);
  t.ok(member > 1);
  await eventually(() => stateOf(member) === null, 'the member of the group has ended');
});

t.test('a process that ends in time has no mark, and leaves no deadline behind', async (t) => {
  const { id } = await daemon.spawn(['true'], {}, { timeout: { afterMs: HOUR }, lease: { ttlMs: HOUR } });
  t.same((await daemon.waitid(id)).body.outcome, { reason: 'exited', exitCode: 0 });
  t.match((await daemon.get(`/v1/handles/${id}`)).body, {
    timeout: { afterMs: HOUR },
    lease: { expiresAt: undefined },
  });
});

t.test('a timeout that meets the exit is marked only if it came first', async (t) => {
  for (let round = 0; round < 30; round += 1) {
    const ms = 20 + (round % 12);
    const argv = ['sh', '-c', `sleep 0.0${25 + (round % 5)}; exit 5`];
    const { id } = await daemon.spawn(argv, {}, { timeout: { afterMs: ms } });
    const { outcome } = (await daemon.waitid(id)).body;
    if (outcome.reason === 'exited')
      t.same({ ...outcome, timedOut: undefined }, { ...outcome, exitCode: 5, timedOut: undefined });
    else t.same(outcome, { reason: 'killed', signal: 'SIGTERM', timedOut: true });
    const events = (await daemon.events(id)).filter(({ event }) => event === 'exited');
    t.same(
      events.map((event) => event.outcome),
      [outcome],
    );
  }
});

t.test('PATCH moves a timeout, still counted from the start, and null removes it', async (t) => {
  const later = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: HOUR, graceMs: 7 } });
  t.same((await patch(later.id, { timeout: { afterMs: 2 * HOUR } })).body.timeout, { afterMs: 2 * HOUR, graceMs: 7 });
  t.same((await patch(later.id, { timeout: { afterMs: 0, graceMs: 9 } })).body.timeout, { afterMs: 0, graceMs: 9 });
  t.match((await daemon.waitid(later.id)).body.outcome, { timedOut: true }, 'a time that has passed is due at once');
  const none = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 400 } });
  t.equal((await patch(none.id, { timeout: null })).body.timeout, undefined);
  t.equal((await patch(none.id, { timeout: null })).body.timeout, undefined, 'also where there is none');
  await setTimeout(600);
  t.match((await daemon.get(`/v1/handles/${none.id}`)).body, { state: 'running' });
  t.same((await patch(none.id, { timeout: { afterMs: 1 } })).body.timeout, { afterMs: 1, graceMs: 5000 });
  t.match((await daemon.waitid(none.id)).body.outcome, { timedOut: true }, 'also of a process without one');
});

t.test('a PATCH that meets the deadline either moves it or is told that it is too late', async (t) => {
  let moved = 0;
  for (let round = 0; round < 20; round += 1) {
    const { id } = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 30 } });
    await setTimeout(22 + (round % 10));
    const answer = await patch(id, { timeout: { afterMs: HOUR }, labels: { patched: 'yes' } });
    if (answer.status === 200) {
      moved += 1;
      await daemon.signal(id, 'SIGKILL');
      t.same((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
    } else {
      t.match(answer.body, { errno: 'ESRCH', handle: id });
      t.same((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGTERM', timedOut: true });
      t.same((await daemon.get(`/v1/handles/${id}`)).body.labels, {}, 'nothing else was changed either');
    }
  }
  t.comment(`${moved} of 20 were moved`);
});

t.test('a timeout and a lease are of the spawn: who only opened the process cannot change them', async (t) => {
  const spawned = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: HOUR }, lease: { ttlMs: HOUR } });
  const opened = (await daemon.post('/v1/handles', { open: { pid: spawned.process.pid } })).body;
  t.match((await patch(opened.id, { timeout: null })).body, { errno: 'EINVAL', handle: opened.id });
  t.match((await daemon.post(`/v1/handles/${opened.id}/lease`)).body, { errno: 'EINVAL' });
  const twin = (await daemon.post('/v1/handles', { dup: spawned.id })).body;
  t.match((await patch(twin.id, { timeout: { afterMs: 2 * HOUR } })).body, { timeout: { afterMs: 2 * HOUR } });
  t.equal((await daemon.post(`/v1/handles/${twin.id}/lease`)).status, 200);
  const without = await daemon.spawn(['sleep', '60']);
  t.match((await daemon.post(`/v1/handles/${without.id}/lease`)).body, { errno: 'EINVAL', detail: /no lease/ });
  const ended = await daemon.spawn(['true'], {}, { lease: { ttlMs: HOUR } });
  await daemon.waitid(ended.id);
  t.match((await daemon.post(`/v1/handles/${ended.id}/lease`)).body, { errno: 'ESRCH' });
  t.match((await patch(ended.id, { timeout: { afterMs: 1 } })).body, { errno: 'ESRCH' });
  for (const id of [spawned.id, without.id]) await daemon.signal(id, 'SIGKILL');
});

t.test('what is no timeout or lease is refused', async (t) => {
  for (const more of [
    { timeout: {} },
    { timeout: { afterMs: -1 } },
    { timeout: { afterMs: 2 ** 31 } },
    { timeout: { afterMs: 1.5 } },
    { timeout: { afterMs: 1, grace: 1 } },
    { timeout: 5 },
    { lease: {} },
    { lease: { ttlMs: '5' } },
    { lease: { ttlMs: 5, graceMs: -1 } },
  ])
    t.match((await daemon.post('/v1/handles', spawn(more))).body, { errno: 'EINVAL' }, JSON.stringify(more));
  const { id } = await daemon.spawn(['sleep', '60']);
  for (const body of [{ timeout: {} }, { timeout: { graceMs: 5 } }, { lease: null }])
    t.match((await patch(id, body)).body, { errno: 'EINVAL' }, JSON.stringify(body));
  await daemon.signal(id, 'SIGKILL');
});

t.test('a lease that nobody renews ends the process', async (t) => {
  const { id, lease } = (await daemon.post('/v1/handles', spawn({ lease: { ttlMs: 50 } }))).body;
  t.match(lease, { ttlMs: 50, graceMs: 5000, expiresAt: String });
  t.same((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGTERM', leaseExpired: true });
});

t.test('a lease that is renewed in time lasts', async (t) => {
  const { id } = await daemon.spawn(['sleep', '60'], { name: 'renewed' }, { lease: { ttlMs: 400 } });
  const began = Date.now();
  for (let round = 0; round < 6; round += 1) {
    await setTimeout(100);
    const { status, body } = await daemon.post('/v1/handles/@renewed/lease');
    t.equal(status, 200);
    t.ok(Date.parse(body.expiresAt) >= began + 400);
  }
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.match((await daemon.waitid(id)).body.outcome, { leaseExpired: true });
});

t.test('a renewal in the last millisecond either saves the process or is refused', async (t) => {
  for (let round = 0; round < 20; round += 1) {
    const { id } = await daemon.spawn(['sleep', '60'], {}, { lease: { ttlMs: 30 } });
    await setTimeout(22 + (round % 10));
    const { status, body } = await daemon.post(`/v1/handles/${id}/lease`);
    if (status === 200) t.ok(Date.parse(body.expiresAt) > 0);
    else t.match(body, { errno: 'ESRCH' });
    const { outcome } = (await daemon.waitid(id)).body;
    t.same(outcome, { reason: 'killed', signal: 'SIGTERM', leaseExpired: true });
  }
});

t.test('a socket that holds a lease renews it for as long as it lives', async (t) => {
  const { id } = await daemon.spawn(['sleep', '60'], { name: 'held' }, { lease: { ttlMs: 300 } });
  const none = await daemon.spawn(['sleep', '60']);
  const first = daemon.ws();
  await first.first(({ type }) => type === 'hello');
  first.send({ type: 'hold', handles: ['@held', none.id, 'h_nosuch', id] });
  t.same((await first.first(({ type }) => type === 'held')).handles, [id, id]);
  await first.until(() => first.frames.filter(({ type }) => type === 'error').length === 2);
  t.same(
    first.frames.filter(({ type }) => type === 'error').map(({ errno }) => errno),
    ['EINVAL', 'EBADF'],
  );
  const second = daemon.ws();
  await second.first(({ type }) => type === 'hello');
  second.send({ type: 'hold', handles: [id] });
  await second.first(({ type }) => type === 'held');
  t.equal((await daemon.get(`/v1/handles/${id}`)).body.lease.expiresAt, undefined);
  first.close();
  await setTimeout(500);
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' }, 'the other one still holds it');
  t.equal((await daemon.post(`/v1/handles/${id}/lease`)).status, 200, 'a held lease can be renewed too');
  second.send({ type: 'release', handles: [id] });
  t.same((await second.first(({ type }) => type === 'released')).handles, [id]);
  t.ok(Date.parse((await daemon.get(`/v1/handles/${id}`)).body.lease.expiresAt) > Date.now());
  t.match((await daemon.waitid(id)).body.outcome, { leaseExpired: true });
  second.send({ type: 'hold', handles: [id] });
  t.match(await second.first(({ type }) => type === 'error'), { errno: 'ESRCH' });
  second.close();
  await daemon.signal(none.id, 'SIGKILL');
});

t.test('when the socket of a hold dies, the lease runs from that moment', async (t) => {
  for (let round = 0; round < 10; round += 1) {
    const { id } = await daemon.spawn(['sleep', '60'], {}, { lease: { ttlMs: 20 * (round % 3) + 60 } });
    const socket = daemon.ws();
    await socket.first(({ type }) => type === 'hello');
    socket.send({ type: 'hold', handles: [id] });
    await socket.first(({ type }) => type === 'held' || type === 'error');
    const isHeld = socket.frames.some(({ type }) => type === 'held');
    await setTimeout(150);
    const { state } = (await daemon.get(`/v1/handles/${id}`)).body;
    t.equal(state, isHeld ? 'running' : 'exited');
    if (round % 2 === 0) socket.close();
    else socket.ws.close();
    t.match((await daemon.waitid(id)).body.outcome, { leaseExpired: true });
  }
});

/** Returns a frame of a client, masked with zeros (RFC 6455 5.2). */
const frameOf = (opcode: number, payload: string): Buffer =>
  Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]), Buffer.from(payload)]);

t.test('a close frame ends a hold, also if the client leaves its connection open', async (t) => {
  const { id } = await daemon.spawn(['sleep', '60'], { name: 'left' }, { lease: { ttlMs: 200 } });
  const connection = connect({ path: daemon.socket, allowHalfOpen: true });
  t.teardown(() => connection.destroy());
  const headers = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13';
  connection.write(
    `GET /v1/events HTTP/1.1\r\nHost: x\r\n${headers}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
  );
  connection.write(frameOf(1, '{"type":"hold","handles":["@left"]}'));
  let text = '';
  await new Promise<void>((resolve) => {
    connection.on('data', (data) => {
      text += String(data);
      if (text.includes('"held"') || text.includes('ESRCH')) resolve();
    });
  });
  connection.write(frameOf(8, ''));
  const begun = performance.now();
  t.match((await daemon.waitid(id)).body.outcome, { leaseExpired: true });
  t.ok(performance.now() - begun < 20_000, 'long before a connection without an answer is dropped');
});

t.test('a timeout holds when the last handle is closed, over an upgrade and over a crash', async (t) => {
  const daemon = await Daemon.start(t);
  const pids: number[] = [];
  for (const afterMs of [500, 1500, 60_000]) {
    const { id, process } = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs } });
    pids.push(process.pid);
    t.equal((await daemon.request('DELETE', `/v1/handles/${id}`)).status, 204);
  }
  await daemon.upgrade();
  await eventually(() => stateOf(pids[0]!) === null, 'the first has ended');
  await daemon.kill();
  await Daemon.start(t, { directory: daemon.directory });
  await eventually(() => [null, 'Z'].includes(stateOf(pids[1]!)), 'the second has ended');
  t.equal(stateOf(pids[2]!), 'S', 'the third has time');
  process.kill(pids[2]!, 'SIGKILL');
});

t.test('a deadline that passes while no daemon runs is enforced at the next start', async (t) => {
  const daemon = await Daemon.start(t);
  const due = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 1000 } });
  const later = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 60_000 } });
  await daemon.kill();
  await setTimeout(1100);
  t.equal(stateOf(due.process.pid), 'S', 'nobody has ended it');
  const heir = await Daemon.start(t, { directory: daemon.directory });
  const features = await heir.features();
  t.match((await heir.post('/v1/poll', { handles: [due.id], for: 'outcome', timeoutMs: 10_000 })).body.ready, [
    { outcome: features.exitStatus ? { signal: 'SIGTERM', timedOut: true } : { reason: 'unknown', timedOut: true } },
  ]);
  t.match((await heir.get(`/v1/handles/${later.id}`)).body, { state: 'running', timeout: { afterMs: 60_000 } });
  process.kill(later.process.pid, 'SIGKILL');
});

t.test('a grace under way goes on over an upgrade, with one SIGTERM alone', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'terms');
  const script = `trap "echo x >> ${file}" TERM; echo ready > ${file}.ready; while :; do sleep 0.05; done`;
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { timeout: { afterMs: 600, graceMs: 2500 } });
  await eventually(() => existsSync(file), 'SIGTERM was sent');
  await daemon.upgrade();
  t.same((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL', timedOut: true });
  t.equal(readFileSync(file, 'utf8'), 'x\n');
});

t.test('a lease starts anew at an upgrade and at a restart', async (t) => {
  const daemon = await Daemon.start(t);
  const ttlMs = 4000;
  const { id } = await daemon.spawn(['sleep', '60'], {}, { lease: { ttlMs } });
  const before = Date.parse((await daemon.get(`/v1/handles/${id}`)).body.lease.expiresAt);
  await daemon.upgrade();
  const upgraded = Date.parse((await daemon.get(`/v1/handles/${id}`)).body.lease.expiresAt);
  t.ok(upgraded > before);
  await daemon.kill();
  const heir = await Daemon.start(t, { directory: daemon.directory });
  t.ok(Date.parse((await heir.get(`/v1/handles/${id}`)).body.lease.expiresAt) > upgraded);
  t.equal((await heir.post(`/v1/handles/${id}/lease`)).status, 200);
  const { ready } = (await heir.post('/v1/poll', { handles: [id], for: 'outcome' })).body;
  t.match(ready[0].outcome, { leaseExpired: true });
});

t.test('a changed wall clock moves no deadline', async (t) => {
  const file = join(t.testdir(), 'clocks');
  const daemon = await Daemon.start(t, { env: withClocks(file) });
  const { id } = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: HOUR }, lease: { ttlMs: HOUR } });
  for (const wallMs of [48 * HOUR, -48 * HOUR]) {
    writeFileSync(file, JSON.stringify({ wallMs }));
    await daemon.upgrade();
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  }
  t.equal((await patch(id, { timeout: { afterMs: 1 } }, daemon)).status, 200);
  t.match((await daemon.waitid(id)).body.outcome, { timedOut: true });
});

// A time namespace can be two hours ahead, as CLOCK_BOOTTIME is after a suspend.
const ahead = ['unshare', '--time', '--boottime', '7200', '--fork', '--kill-child'];
const [unshare = '', ...options] = ahead;
const skip = spawnSync(unshare, [...options, 'true']).status === 0 ? false : 'no time namespace can be created here';

t.test('suspended time counts', { skip }, async (t) => {
  const daemon = await Daemon.start(t);
  const due = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: HOUR } });
  const later = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 3 * HOUR } });
  await daemon.kill();
  const heir = await Daemon.start(t, { directory: daemon.directory, prefix: ahead });
  const { ready } = (await heir.post('/v1/poll', { handles: [due.id], for: 'outcome' })).body;
  t.match(ready, [{ outcome: { timedOut: true } }]);
  t.match((await heir.get(`/v1/handles/${later.id}`)).body, { state: 'running' });
  process.kill(later.process.pid, 'SIGKILL');
});

t.test('a policy caps how long a process may live', async (t) => {
  const rule = { programs: ['/bin/', '/usr/bin/'], maxLifetimeMs: 10_000 };
  const daemon = await startWithPolicy(t, {
    capped: { ...full, spawn: rule },
    silent: { ...full, signal: false },
  });
  const make = (more: object) => daemon.post('/v1/handles', spawn(more), as('capped'));
  const given = (await make({})).body;
  t.same(given.timeout, { afterMs: 5000, graceMs: 5000 }, 'a spawn without a timeout gets the longest');
  t.equal((await make({ timeout: { afterMs: 9000, graceMs: 1000 } })).status, 201);
  for (const timeout of [{ afterMs: 9001, graceMs: 1000 }, { afterMs: 9000 }, { afterMs: 0, graceMs: 10_001 }])
    t.match((await make({ timeout })).body, { errno: 'EPERM' }, JSON.stringify(timeout));
  const change = (timeout: object | null) =>
    daemon.request('PATCH', `/v1/handles/${given.id}`, { body: { timeout }, ...as('capped') });
  t.match((await change(null)).body, { errno: 'EPERM' });
  t.match((await change({ afterMs: 5001 })).body, { errno: 'EPERM' }, 'the grace stays as it is');
  t.match((await change({ afterMs: 9000, graceMs: 0 })).body, { timeout: { afterMs: 9000, graceMs: 0 } });
  const own = (await daemon.post('/v1/handles', spawn({ timeout: { afterMs: HOUR } }), as('silent'))).body;
  const body = { timeout: { afterMs: 0 } };
  const refused = await daemon.request('PATCH', `/v1/handles/${own.id}`, { body, ...as('silent') });
  t.match(refused.body, { errno: 'EPERM' }, 'a timeout ends a process, for which the right to signal is needed');
});

t.test('metrics count the processes that were ended at a deadline', async (t) => {
  const daemon = await Daemon.start(t);
  const timed = await daemon.spawn(['sleep', '60'], {}, { timeout: { afterMs: 10 } });
  const leased = await daemon.spawn(['sleep', '60'], {}, { lease: { ttlMs: 10 } });
  for (const { id } of [timed, leased]) await daemon.waitid(id);
  const { text } = await daemon.get('/metrics');
  t.match(text, 'waitd_overdue_total{deadline="timeout"} 1');
  t.match(text, 'waitd_overdue_total{deadline="lease"} 1');
});
