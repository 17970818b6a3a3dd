import t from 'tap';
import { Daemon, eventually, stateOf } from './support/harness.ts';
import { buildTwin } from './support/twin.ts';

const daemon = await Daemon.start(t);
const again = { status: 409, errno: 'EAGAIN', syscall: 'waitid' };
const noChild = { status: 410, errno: 'ECHILD', syscall: 'waitid' };

/** Parks a wait, and resolves once the daemon counts it. */
async function parked(count: number): Promise<void> {
  await eventually(async () => (await daemon.get('/metrics')).text.includes(`waitd_parked_calls ${count}\n`));
}

t.test('the table: {blocking, nonblocking} x {WNOHANG or not} without a pending event', async (t) => {
  const blocking = await daemon.spawn(['sleep', '100']);
  const nonblocking = await daemon.spawn(['sleep', '100'], { nonblocking: true });
  const timedOut = await daemon.waitid(blocking.id, { timeoutMs: 1 });
  t.match([timedOut.status, timedOut.body], [200, { siginfo: null, timedOut: true }]);
  for (const id of [blocking.id, nonblocking.id]) {
    const nothing = await daemon.waitid(id, { options: ['WEXITED', 'WNOHANG'] });
    t.same([nothing.status, nothing.body], [200, { handle: id, siginfo: null, outcome: null, rusage: null }]);
  }
  const refused = await daemon.waitid(nonblocking.id);
  t.match(refused.body, again);
  const { head } = (await daemon.get('/v1/node')).body;
  const events = `/v1/events?handle=${nonblocking.id}&since=${head}`;
  t.match(refused.body.retry, { afterMs: 250, events });
  t.equal(refused.headers['retry-after'], '1');
  t.equal(refused.headers.link, `<${events}>; rel="monitor"`);
  const accepted = await daemon.waitid(nonblocking.id, {}, { headers: { prefer: 'respond-async' } });
  t.match([accepted.status, accepted.body], [202, { siginfo: null, retry: { afterMs: 250, events } }]);
  t.equal(accepted.headers['preference-applied'], 'respond-async');
  t.equal(accepted.headers['retry-after'], '1');
  const later = await daemon.waitid(blocking.id, {}, { headers: { prefer: 'respond-async, wait=0' } });
  t.equal(later.status, 202, 'on a blocking handle after the wait');
  const preferred = await daemon.waitid(blocking.id, {}, { headers: { prefer: 'wait=0' } });
  t.match([preferred.status, preferred.body], [200, { timedOut: true }]);
  t.equal(preferred.headers['preference-applied'], 'wait=0');
  const wins = await daemon.waitid(blocking.id, { timeoutMs: 1 }, { headers: { prefer: 'wait=1000' } });
  t.equal(wins.body.timedOut, true, 'timeoutMs wins over Prefer');
});

t.test('options are checked before anything else', async (t) => {
  const { id } = await daemon.spawn(['true']);
  for (const options of [[], ['WNOHANG'], ['WNOWAIT'], ['WNOHANG', 'WNOWAIT']])
    t.match((await daemon.waitid(id, { options })).body, { status: 400, errno: 'EINVAL' }, options.join());
  t.match((await daemon.waitid(id, { options: ['WUNTRACED'] })).body, { status: 400, errno: 'EINVAL' });
  t.match((await daemon.waitid(id, { timeoutMs: -1 })).body, { status: 400, errno: 'EINVAL' });
  t.match((await daemon.waitid(id, { timeoutMs: 2 ** 31 })).body, { status: 400, errno: 'EINVAL' });
  t.match((await daemon.waitid(id, 'not json')).body, { status: 400, errno: 'EINVAL' });
  t.equal((await daemon.waitid(id, '')).status, 200, 'an empty body is allowed');
  await daemon.request('DELETE', `/v1/handles/${id}`);
  for (const unusable of [id, 'h_unknown']) {
    const refused = await daemon.waitid(unusable, { options: ['WNOHANG'] });
    t.match(
      refused.body,
      { status: 400, errno: 'EINVAL', syscall: 'waitid' },
      'before the descriptor, as in the kernel',
    );
  }
});

t.test('a stopped child without a handle is still stopped for the next client, with its stop unread', async (t) => {
  for (const between of ['nothing', 'an upgrade', 'a stop without a handle'] as const) {
    const { id, process: own } = await daemon.spawn(['sleep', '100']);
    const stop = async (): Promise<void> => {
      process.kill(own.pid, 'SIGSTOP');
      await eventually(() => stateOf(own.pid) === 'T');
    };
    if (between !== 'a stop without a handle') {
      await stop();
      await daemon.waitid(id, { options: ['WSTOPPED'] });
    }
    await daemon.request('DELETE', `/v1/handles/${id}`);
    if (between === 'a stop without a handle') await stop();
    if (between === 'an upgrade') await daemon.upgrade();
    const { body: again } = await daemon.post('/v1/handles', { open: { pid: own.pid } });
    t.match(again, { relation: 'child', state: 'stopped' }, between);
    const read = await daemon.waitid(again.id, { options: ['WSTOPPED', 'WNOHANG'] });
    t.match(read.body, { siginfo: { code: 'CLD_STOPPED', status: 19 }, outcome: { signal: 'SIGSTOP' } }, between);
    t.match((await daemon.waitid(again.id, { options: ['WSTOPPED', 'WNOHANG'] })).body, { siginfo: null }, 'once');
    await daemon.request('DELETE', `/v1/handles/${again.id}`);
    process.kill(own.pid, 'SIGCONT');
    await eventually(() => stateOf(own.pid) === 'S');
    const { body: last } = await daemon.post('/v1/handles', { open: { pid: own.pid } });
    t.equal(last.state, 'running', 'after a continue there is no stop left');
    await daemon.request('DELETE', `/v1/handles/${last.id}?signal=SIGKILL`);
  }
});

t.test('a child that its parent traces is stopped, not ended, by a signal', async (t) => {
  const program = buildTwin(daemon.directory);
  // The exit check and the stop race: over many rounds each comes first sometimes.
  for (let round = 0; round < 40; round += 1) {
    const { id } = await daemon.spawn([program, 'act', 'traced-stops']);
    const { body } = await daemon.waitid(id);
    t.match(body, { siginfo: { code: 'CLD_TRAPPED' }, outcome: { reason: 'trapped', signal: 'SIGWINCH' } });
    t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'stopped', outcome: null });
    t.match((await daemon.waitid(id, { options: ['WEXITED', 'WNOHANG'] })).body, { siginfo: null });
    await daemon.signal(id, 'SIGKILL');
    t.match((await daemon.waitid(id)).body.outcome, { reason: 'killed', signal: 'SIGKILL' });
  }
});

t.test('each client collects once, on any of its handles, and takes nothing from another', async (t) => {
  const mine = await daemon.spawn(['sh', '-c', 'sleep 0.05; exit 3']);
  const { body: twin } = await daemon.post('/v1/handles', { open: { pid: mine.process.pid } });
  t.match((await daemon.waitid(twin.id, { options: ['WEXITED', 'WNOWAIT'] })).body, { outcome: { exitCode: 3 } });
  t.match((await daemon.waitid(mine.id, { options: ['WEXITED', 'WNOWAIT'] })).body, { outcome: { exitCode: 3 } });
  t.match((await daemon.waitid(twin.id)).body, { siginfo: { status: 3 } });
  t.match((await daemon.waitid(twin.id)).body, noChild);
  t.match((await daemon.waitid(mine.id, { options: ['WEXITED', 'WNOHANG'] })).body, noChild);
  t.match((await daemon.get(`/v1/handles/${mine.id}`)).body, { collected: true, outcome: { exitCode: 3 } });
});

t.test('of 200 waits on one process one collects, and WNOWAIT calls do not interfere', async (t) => {
  const handle = await daemon.spawn(['sleep', '100']);
  const waits = Array.from({ length: 200 }, () => daemon.waitid(handle.id));
  const peeks = Array.from({ length: 20 }, () => daemon.waitid(handle.id, { options: ['WEXITED', 'WNOWAIT'] }));
  await parked(220);
  await daemon.signal(handle.id, 'SIGKILL');
  const statuses = (await Promise.all(waits)).map((answer) => answer.status);
  t.equal(statuses.filter((status) => status === 200).length, 1);
  t.equal(statuses.filter((status) => status === 410).length, 199);
  for (const { status } of await Promise.all(peeks)) t.ok(status === 200 || status === 410);
});

t.test('a parked wait whose caller has disconnected collects nothing', async (t) => {
  for (let round = 0; round < 50; round += 1) {
    const handle = await daemon.spawn(['sleep', '100']);
    const caller = new AbortController();
    const lost = daemon.waitid(handle.id, {}, { signal: caller.signal }).catch((error: Error) => error.name);
    await parked(1);
    caller.abort();
    t.equal(await lost, 'AbortError');
    await daemon.signal(handle.id, 'SIGKILL');
    t.match((await daemon.waitid(handle.id)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  }
});

t.test('neither close nor PATCH affects a parked wait', async (t) => {
  for (const options of [['WEXITED'], ['WSTOPPED']]) {
    const handle = await daemon.spawn(['sleep', '100']);
    const { body: other } = await daemon.post('/v1/handles', { dup: handle.id });
    const wait = daemon.waitid(handle.id, { options });
    await parked(1);
    await daemon.request('PATCH', `/v1/handles/${handle.id}`, { body: { nonblocking: true } });
    t.match((await daemon.waitid(other.id)).body, again, 'the next call sees the flag');
    await daemon.request('DELETE', `/v1/handles/${other.id}`);
    await daemon.request('DELETE', `/v1/handles/${handle.id}`);
    process.kill(handle.process.pid, options[0] === 'WEXITED' ? 'SIGTERM' : 'SIGSTOP');
    t.match((await wait).body, { outcome: { signal: options[0] === 'WEXITED' ? 'SIGTERM' : 'SIGSTOP' } });
    if (options[0] === 'WSTOPPED') process.kill(handle.process.pid, 'SIGKILL');
  }
});

t.test('stops and continues: a parked wait for each wakes, and each client has its own events', async (t) => {
  const { id, process: child } = await daemon.spawn(['sleep', '100']);
  const stopped = daemon.waitid(id, { options: ['WSTOPPED'] });
  const ended = daemon.waitid(id, { options: ['WEXITED'] });
  await parked(2);
  await daemon.signal(id, 'SIGSTOP');
  t.match((await stopped).body, {
    siginfo: { code: 'CLD_STOPPED', status: 19 },
    outcome: { reason: 'stopped', signal: 'SIGSTOP' },
  });
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'stopped' });
  t.match((await daemon.waitid(id, { options: ['WSTOPPED', 'WNOHANG'] })).body, { siginfo: null }, 'it is read once');
  const continued = daemon.waitid(id, { options: ['WCONTINUED'] });
  await parked(2);
  await daemon.signal(id, 'SIGCONT');
  t.match((await continued).body, { siginfo: { code: 'CLD_CONTINUED', status: 18 }, outcome: { reason: 'continued' } });
  // A continue discards an unread stop, as in the kernel.
  process.kill(child.pid, 'SIGSTOP');
  await eventually(() => stateOf(child.pid) === 'T');
  process.kill(child.pid, 'SIGCONT');
  t.match((await daemon.waitid(id, { options: ['WSTOPPED', 'WNOHANG'] })).body, { siginfo: null });
  t.match((await daemon.waitid(id, { options: ['WCONTINUED', 'WNOHANG'] })).body, {
    siginfo: { code: 'CLD_CONTINUED' },
  });
  const onlyStops = daemon.waitid(id, { options: ['WSTOPPED'] });
  await parked(2);
  await daemon.signal(id, 'SIGKILL');
  t.match((await onlyStops).body, noChild, 'a wait for stops alone ends with ECHILD');
  t.match((await ended).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.same(
    (await daemon.events(id)).map((event) => event.event).filter((type) => !['stopped', 'continued'].includes(type)),
    ['opened', 'exited', 'settled'],
  );
});

t.test('a client’s first handle on a stopped process starts with that stop unread', async (t) => {
  const { id, process: child } = await daemon.spawn(['sleep', '100']);
  await daemon.signal(id, 'SIGSTOP');
  await daemon.waitid(id, { options: ['WSTOPPED'] });
  const { body: again } = await daemon.post('/v1/handles', { open: { pid: child.pid } });
  t.match(
    (await daemon.waitid(again.id, { options: ['WSTOPPED', 'WNOHANG'] })).body,
    { siginfo: null },
    'not the first',
  );
  await daemon.request('DELETE', `/v1/handles/${id}`);
  await daemon.request('DELETE', `/v1/handles/${again.id}`);
  const { body: first } = await daemon.post('/v1/handles', { open: { pid: child.pid } });
  t.equal(first.relation, 'child');
  await daemon.request('DELETE', `/v1/handles/${first.id}?signal=SIGKILL`);
});

t.test('poll waits for any, all or a number of handles, and collects nothing', async (t) => {
  const handles = await Promise.all([1, 2, 3].map(() => daemon.spawn(['sleep', '100'])));
  const ids = handles.map((handle) => handle.id);
  const none = await daemon.post('/v1/poll', { handles: ids, timeoutMs: 1 });
  t.same(none.body, { ready: [], pending: ids, timedOut: true });
  const any = daemon.post('/v1/poll', { handles: ids });
  const two = daemon.post('/v1/poll', { handles: ids, until: 2 });
  const all = daemon.post('/v1/poll', { handles: ids, until: 'all', for: 'outcome' });
  await parked(3);
  await daemon.signal(ids[1]!, 'SIGKILL');
  const outcome = { reason: 'killed', signal: 'SIGKILL' };
  const ready = { handle: ids[1], revents: ['POLLIN', 'POLLHUP'], outcome };
  t.same((await any).body, { ready: [ready], pending: [ids[0], ids[2]], timedOut: false });
  await daemon.signal(ids[0]!, 'SIGKILL');
  t.match((await two).body, { ready: [{ handle: ids[0] }, { handle: ids[1] }], pending: [ids[2]] });
  await daemon.signal(ids[2]!, 'SIGKILL');
  t.match((await all).body, { ready: ids.map((handle) => ({ handle, outcome })), pending: [], timedOut: false });
  t.match((await daemon.waitid(ids[1]!)).body, { outcome }, 'nothing was collected');
  for (const body of [
    { handles: [] },
    { handles: ids, until: 4 },
    { handles: [ids[0], ids[0]] },
    { handles: ids, until: 0 },
  ])
    t.match((await daemon.post('/v1/poll', body)).body, { status: 400, errno: 'EINVAL' }, JSON.stringify(body));
  t.match((await daemon.post('/v1/poll', { handles: [ids[0], 'h_nosuch'] })).body, { status: 404, errno: 'EBADF' });
});

t.test('waits over TCP with the first token belong to the same client', async (t) => {
  const { id } = await daemon.spawn(['true']);
  t.match((await daemon.waitid(id, {}, { tcp: true })).body, { outcome: { reason: 'exited', exitCode: 0 } });
  t.match((await daemon.waitid(id)).body, noChild);
});

t.test('a stop answers parked calls with 503, and nothing is left behind', async (t) => {
  const { id, process: child } = await daemon.spawn(['sleep', '100']);
  const wait = daemon.waitid(id);
  const poll = daemon.post('/v1/poll', { handles: [id] });
  await parked(2);
  const code = daemon.stop();
  for (const answer of await Promise.all([wait, poll])) {
    t.match(answer.body, { status: 503, errno: 'ESHUTDOWN' });
    t.equal(answer.headers['retry-after'], '1');
  }
  t.equal(await code, 0);
  t.ok(stateOf(child.pid), 'the spawned process lives on');
  process.kill(child.pid, 'SIGKILL');
});
