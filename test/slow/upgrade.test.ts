import t from 'tap';
import { Caller } from '../support/caller.ts';
import { childrenOf, Daemon, eventually } from '../support/harness.ts';
import { Listener } from '../support/listener.ts';

const CHILDREN = 500;
const SUBSCRIBERS = 50;
const UPGRADES = 5;
const PARKED = 50;
const WORKERS = 8;

async function parkedCalls(caller: Caller): Promise<number> {
  const { text } = await caller.get('/metrics');
  return Number(/^waitd_parked_calls (\d+)$/m.exec(text)?.[1]);
}

t.test(`${UPGRADES} upgrades with ${CHILDREN} children and ${SUBSCRIBERS} subscribers`, async (t) => {
  const daemon = await Daemon.start(t);
  const { pid } = daemon;
  const caller = new Caller(daemon.socket);
  const listeners = Array.from({ length: SUBSCRIBERS }, () => new Listener(daemon.socket));
  const ids: string[] = [];
  const spawn = async (argv: string[], key: string, more = {}): Promise<string> => {
    const { status, text, body } = await caller.post('/v1/handles', { spawn: { argv, ...more } }, key);
    if (status !== 201) throw new Error(text);
    ids.push(body.id);
    return body.id;
  };
  const bounds = { timeout: { afterMs: 3_600_000 }, lease: { ttlMs: 3_600_000 } };
  const lasting = await Promise.all(
    Array.from({ length: CHILDREN }, (_, n) => spawn(['sleep', '1000'], `child-${n}`, n % 2 === 0 ? bounds : {})),
  );
  const parked = lasting.slice(0, PARKED).map((id, n) => caller.post(`/v1/handles/${id}/waitid`, {}, `wait-${n}`));

  // Meanwhile other handles are opened and closed continuously.
  let done = false;
  const coming = Array.from({ length: WORKERS }, async (_, worker) => {
    for (let n = 0; !done; n += 1) {
      const id = await spawn(['sh', '-c', `exit ${n % 256}`], `short-${worker}-${n}`);
      const { status, body } = await caller.post(`/v1/handles/${id}/waitid`, {}, `short-wait-${worker}-${n}`);
      if (status !== 200 || body.outcome.exitCode !== n % 256) t.fail(JSON.stringify(body));
    }
  });
  const timed: string[] = [];
  for (let n = 0; n < UPGRADES; n += 1) {
    const afterMs = 100 + 400 * n;
    timed.push(await spawn(['sleep', '1000'], `timed-${n}`, { timeout: { afterMs } }));
    const before = ids.length;
    await eventually(() => ids.length > before + 20 && listeners.every(({ greeted }) => greeted === n + 1));
    await eventually(async () => (await parkedCalls(caller)) >= PARKED);
    await daemon.upgrade();
    t.equal(daemon.pid, pid);
  }
  await caller.post('/v1/poll', { handles: timed, until: 'all' });
  for (const id of timed) {
    const { outcome } = (await caller.get(`/v1/handles/${id}`)).body;
    t.same(outcome, { reason: 'killed', signal: 'SIGTERM', timedOut: true });
  }
  await eventually(() => listeners.every(({ greeted }) => greeted === UPGRADES + 1));
  done = true;
  await Promise.all(coming);
  // The fork server ends a moment after the last spawn.
  await eventually(() => childrenOf(pid).length === CHILDREN, 'all children are still its own');
  for (const id of lasting) {
    const { relation, state } = (await caller.get(`/v1/handles/${id}`)).body;
    if (relation !== 'child' || state !== 'running') t.fail(`${id} is ${relation} and ${state}`);
  }
  await Promise.all(lasting.map((id) => caller.post(`/v1/handles/${id}/signal`, { signal: 'SIGKILL' })));
  for (const answer of await Promise.all(parked)) t.match(answer.body, { outcome: { signal: 'SIGKILL' } });
  await caller.post('/v1/poll', { handles: lasting, until: 'all' });

  const { askedAgain } = caller;
  t.ok(
    (askedAgain['503 ESHUTDOWN, Retry-After 0'] ?? 0) >= UPGRADES * (PARKED - WORKERS),
    'each upgrade answers all parked waits (some may belong to short-lived handles)',
  );
  t.notOk(
    Object.keys(askedAgain).some((why) => why === 'ECONNREFUSED' || why === 'ENOENT'),
    'no request is refused',
  );

  const last = await caller.lastSeq();
  await Promise.all(listeners.map((listener) => listener.until(last)));
  const told = Array.from({ length: last }, (_, at) => at + 1);
  t.ok(
    listeners.every(({ heard }) => heard.length === told.length && heard.every(({ seq }, at) => seq === told[at])),
    `each of ${last} events once, in order, to each of ${SUBSCRIBERS}`,
  );
  t.ok(listeners.every(({ gaps }) => gaps.length === 0));
  t.ok(listeners.every(({ codes }) => codes.length === UPGRADES && codes.every((code) => code === 1012)));
  t.equal(last, 3 * ids.length, 'opened, exited and settled for each');
  let unknown = 0;
  for await (const { outcome } of caller.events()) if (outcome?.reason === 'unknown') unknown += 1;
  t.equal(unknown, 0);
  for (const listener of listeners) listener.end();
  caller.close();
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});
