import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { Daemon, eventually, Gate, type RequestOptions, temporaryDirectory, withFaults } from './support/harness.ts';

let marks = 0;
const mark = (): string => {
  marks += 1;
  return `watch-${process.pid}-${marks}`;
};

/** In a user namespace the kernel sends no process events, so that the daemon scans. */
const ways = [
  { by: 'events', prefix: [] },
  { by: 'scan', prefix: ['unshare', '--user', '--map-root-user'] },
] as const;

/** Starts a bash with that name, which exits with a code when its gate is opened. */
async function begun(t: Test, name: string, code = 0): Promise<{ pid: number; end(): Promise<unknown> }> {
  const gate = new Gate(t);
  const script = `read -r line < ${gate.path}; exit ${code}`;
  const child = spawn('bash', ['-c', script], { argv0: name, stdio: 'ignore' });
  const exit = once(child, 'exit');
  t.teardown(() => {
    child.kill('SIGKILL');
    return exit;
  });
  return {
    pid: child.pid!,
    end: () => {
      gate.open();
      return exit;
    },
  };
}

async function watch(daemon: Daemon, match: object, more: object = {}, options: RequestOptions = {}) {
  const answer = await daemon.post('/v1/watches', { match, ...more }, options);
  return answer.body;
}

for (const { by, prefix } of ways)
  t.test(`by ${by}: a process that the daemon starts through other programs is opened once it matches`, async (t) => {
    const daemon = await Daemon.start(t, { prefix: [...prefix] });
    const argv = ['sleep', `100.${mark().replace(/\D/g, '')}`];
    const { id } = await watch(daemon, { argv: argv.join(' ') });
    const socket = daemon.ws();
    await socket.first((frame) => frame.type === 'hello');
    const many = 8;
    const spawned = await Promise.all(Array.from({ length: many }, () => daemon.spawn(argv, {}, { umask: '0077' })));
    await socket.until(() => socket.events.filter((event) => event.watch === id).length === many);
    for (const handle of spawned) await daemon.signal(handle.id, 'SIGKILL');
    socket.close();
    t.equal(await daemon.stop(), 0);
  });

for (const { by, prefix } of ways) {
  t.test(`by ${by}: each process that appears is opened once, and its outcome is known`, async (t) => {
    const daemon = await Daemon.start(t, { prefix: [...prefix] });
    const name = mark();
    const before = await begun(t, name);
    const created = await daemon.post('/v1/watches', {
      match: { argv: `${name} *` },
      labels: { job: '7' },
      nonblocking: true,
    });
    t.equal(created.status, 201);
    t.match(created.body, {
      id: /^w_[\w-]{28}$/,
      // In a user namespace, the user who created it is root.
      client: by === 'scan' ? 'uid:0' : `uid:${process.getuid!()}`,
      match: { argv: `${name} *` },
      existing: false,
      nonblocking: true,
      labels: { job: '7' },
      by,
      misses: /^a process that /,
      opened: 0,
    });
    const { id } = created.body;
    t.equal(created.headers.location, `/v1/watches/${id}`);
    const socket = daemon.ws();
    await socket.first(({ type }) => type === 'hello');
    const appeared = [await begun(t, name, 3), await begun(t, name, 4)];
    await socket.until(() => socket.events.filter(({ event }) => event === 'opened').length === 2);
    const opened = socket.events.filter(({ event }) => event === 'opened');
    t.same(new Set(opened.map(({ process }) => process.pid)), new Set(appeared.map(({ pid }) => pid)));
    for (const event of opened) {
      t.equal(event.watch, id);
      t.match((await daemon.get(`/v1/handles/${event.handle}`)).body, {
        watch: id,
        labels: { job: '7' },
        nonblocking: true,
        state: 'running',
      });
    }
    for (const one of appeared) await one.end();
    await before.end();
    await socket.until(() => socket.events.filter(({ event }) => event === 'reaped').length === 2);
    const codes = socket.events.filter(({ event }) => event === 'reaped').map(({ outcome }) => outcome.exitCode);
    t.same(codes.sort(), [3, 4]);
    t.equal((await daemon.get(`/v1/watches/${id}`)).body.opened, 2);
    t.equal(socket.events.filter(({ event }) => event === 'opened').length, 2, 'no other process');
    socket.close();
  });

  t.test(`by ${by}: existing processes are opened on request, and so are those that match later`, async (t) => {
    const daemon = await Daemon.start(t, { prefix: [...prefix] });
    const name = mark();
    const there = await begun(t, name);
    const gate = new Gate(t);
    const later = spawn('bash', ['-c', `read -r line < ${gate.path}; exec -a ${name} sleep 1000`], {
      stdio: 'ignore',
    });
    t.teardown(() => later.kill('SIGKILL'));
    const { id } = await watch(daemon, { argv: `${name} *` }, { existing: true });
    const socket = daemon.ws('?since=0');
    const first = await socket.first(({ event }) => event === 'opened');
    t.equal(first.process.pid, there.pid);
    gate.open();
    const second = await socket.first(({ event, process }) => event === 'opened' && process.pid === later.pid);
    t.match(second.process.argv, [name, '1000']);
    t.equal((await daemon.get(`/v1/watches/${id}`)).body.opened, 2);
    socket.close();
  });

  t.test(`by ${by}: a restart and an upgrade open what appeared in the meantime, and nothing twice`, async (t) => {
    const directory = temporaryDirectory(t);
    const options = { directory, prefix: [...prefix] };
    const daemon = await Daemon.start(t, options);
    const name = mark();
    const passed = await begun(t, name);
    const { id } = await watch(daemon, { argv: `${name} *` });
    const socket = daemon.ws();
    await socket.first(({ type }) => type === 'hello');
    const first = await begun(t, name);
    const { handle } = await socket.first(({ event }) => event === 'opened');
    await daemon.request('DELETE', `/v1/handles/${handle}`);
    await daemon.kill();
    const meanwhile = await begun(t, name, 9);
    const heir = await Daemon.start(t, options);
    const pidsOpened = async (): Promise<number[]> =>
      (await heir.get('/v1/events?since=0&type=opened')).body.events.map(
        ({ process }: { process: { pid: number } }) => process.pid,
      );
    t.same(await pidsOpened(), [first.pid, meanwhile.pid]);
    t.match((await heir.get('/v1/watches')).body, { watches: [{ id, opened: 2, by }] });
    await heir.upgrade();
    const after = await begun(t, name);
    await eventually(async () => (await pidsOpened()).length === 3);
    t.same(await pidsOpened(), [first.pid, meanwhile.pid, after.pid]);
    const { handles } = (await heir.get('/v1/handles')).body;
    t.same(new Set(handles.map(({ watch }: { watch: string }) => watch)), new Set([id]));
    await meanwhile.end();
    const found = handles.find(({ process }: { process: { pid: number } }) => process.pid === meanwhile.pid);
    const { ready } = (await heir.post('/v1/poll', { handles: [found.id], for: 'outcome' })).body;
    t.match(ready, [{ outcome: { reason: 'exited', exitCode: 9 } }]);
    await passed.end();
  });
}

t.test('by events, hundreds of processes are opened once each, with the right outcome', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  const { id, by } = await watch(daemon, { argv: `${name} *` });
  t.equal(by, 'events');
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const seen = (event: string): number => socket.events.filter((frame) => frame.event === event).length;
  const most = 300;
  const gate = new Gate(t);
  for (let first = 0; first < most; first += 20) {
    const codes = Array.from({ length: 20 }, (_, index) => (first + index) % 200);
    const children = codes.map((code) =>
      spawn('bash', ['-c', `read -r line < ${gate.path}; exit ${code}`], { argv0: name, stdio: 'ignore' }),
    );
    const ended = Promise.all(children.map((child) => once(child, 'exit')));
    await socket.until(() => seen('opened') >= first + 20);
    for (const _ of children) gate.open();
    await ended;
  }
  await socket.until(() => seen('reaped') >= most);
  const reaped = socket.events.filter(({ event }) => event === 'reaped');
  t.equal(new Set(reaped.map(({ process }) => process.inode)).size, most);
  const codes = reaped.map(({ outcome }) => outcome.exitCode).sort((a, b) => a - b);
  const expected = Array.from({ length: most }, (_, index) => index % 200).sort((a, b) => a - b);
  t.same(codes, expected);
  t.equal((await daemon.get(`/v1/watches/${id}`)).body.opened, most);
  socket.close();
});

t.test('many existing processes are opened while other requests are answered', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  const most = 400;
  const script = `for i in $(seq ${most}); do (exec -a ${name} sleep 1000) & done; echo up; wait`;
  const parent = spawn('bash', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
  t.teardown(() => process.kill(-parent.pid!, 'SIGKILL'));
  await once(parent.stdout, 'data');
  const { id } = await watch(daemon, { argv: `${name} *` }, { existing: true });
  const opened = async (): Promise<number> => (await daemon.get(`/v1/watches/${id}`)).body.opened;
  await eventually(async () => (await opened()) >= most);
  t.equal(await opened(), most);
  t.match((await daemon.get('/metrics')).text, new RegExp(`^waitd_live_handles ${most}$`, 'm'));
});

t.test('without a watch the daemon opens no socket and scans no processes', async (t) => {
  const daemon = await Daemon.start(t);
  const sockets = (): number =>
    readdirSync(`/proc/${daemon.pid}/fd`).filter((fd) => {
      try {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${daemon.pid}/fd/${fd}`))?.[1];
        return (
          inode !== undefined &&
          new RegExp(`\\s11\\s.*\\s${inode}\\s*$`, 'm').test(readFileSync('/proc/net/netlink', 'utf8'))
        );
      } catch {
        return false;
      }
    }).length;
  t.equal(sockets(), 0);
  const ids = [(await watch(daemon, { argv: mark() })).id, (await watch(daemon, { argv: mark() })).id];
  t.equal(sockets(), 1);
  t.match((await daemon.get('/metrics')).text, /^waitd_watches 2$/m);
  t.same(
    (await daemon.get('/v1/watches')).body.watches.map(({ id }: { id: string }) => id),
    ids.toReversed(),
  );
  for (const id of ids) t.equal((await daemon.request('DELETE', `/v1/watches/${id}`)).status, 204);
  t.equal(sockets(), 0);
  t.match(await daemon.request('DELETE', `/v1/watches/${ids[0]}`), { status: 404, body: { errno: 'EBADF' } });
  t.match(await daemon.get(`/v1/watches/${ids[0]}`), { status: 404, body: { errno: 'EBADF' } });
  t.same((await daemon.get('/v1/watches')).body, { watches: [] });
});

t.test('a deleted watch opens nothing more, and its handles stay open', async (t) => {
  const daemon = await Daemon.start(t);
  const name = mark();
  const { id } = await watch(daemon, { argv: `${name} *` });
  const other = await watch(daemon, { argv: `${name}-other *` });
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  await begun(t, name);
  const { handle } = await socket.first(({ event }) => event === 'opened');
  await daemon.request('DELETE', `/v1/watches/${id}`);
  await begun(t, name);
  await begun(t, `${name}-other`);
  t.equal((await socket.first(({ watch }) => watch === other.id)).watch, other.id);
  t.equal(socket.events.filter(({ event }) => event === 'opened').length, 2);
  t.match((await daemon.get(`/v1/handles/${handle}`)).body, { state: 'running', watch: id });
  socket.close();
});

const as = (name: string): RequestOptions => ({ headers: { authorization: `Bearer ${name}-0123456789abcdef` } });

function write(policy: string, clients: Record<string, object>): void {
  const named = Object.entries(clients).map(([name, entry]) => [
    name,
    { tokens: [`sha256:${hashOf(`${name}-0123456789abcdef`)}`], ...entry },
  ]);
  writeFileSync(policy, JSON.stringify({ clients: Object.fromEntries(named) }));
}

t.test('a watch opens what its client may open, up to its quota, and tries again later', async (t) => {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy.yaml');
  const observer = { observe: true };
  write(policy, { one: { open: 'any', quotas: { handles: 1 } }, observer });
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy], prefix: [...ways[1].prefix] });
  const name = mark();
  const { id } = await watch(daemon, { argv: `${name} *` }, {}, as('one'));
  const token = Buffer.from('observer-0123456789abcdef').toString('base64url');
  const socket = daemon.ws('', ['waitd.v1', `base64url.bearer.authorization.waitd.${token}`]);
  await socket.first(({ type }) => type === 'hello');
  await begun(t, name);
  const { handle } = await socket.first(({ event }) => event === 'opened');
  const second = await begun(t, name);
  await daemon.request('DELETE', `/v1/handles/${handle}`, as('one'));
  const next = await socket.first(({ event, handle: other }) => event === 'opened' && other !== handle);
  t.equal(next.process.pid, second.pid, 'once the quota allows it');
  const from = daemon.entries.length;
  write(policy, { observer });
  await daemon.logged('policy reloaded', from);
  const third = await begun(t, name);
  t.match((await daemon.get(`/v1/watches/${id}`, as('observer'))).body, { opened: 2 });
  write(policy, { one: { open: 'any' }, observer });
  t.equal(
    (await socket.first(({ event, process }) => event === 'opened' && process.pid === third.pid)).watch,
    id,
    'when it is allowed again',
  );
  socket.close();
});

t.test('each client sees only its own watches', async (t) => {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy.yaml');
  const clients = {
    one: { open: 'own' },
    other: { open: 'any' },
    observer: { observe: true },
    admin: { admin: true },
    idle: {},
  };
  write(policy, clients);
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  const { id } = await watch(daemon, { argv: mark() }, {}, as('one'));
  t.equal((await daemon.post('/v1/watches', { match: { argv: 'x' } }, as('idle'))).status, 403);
  t.equal((await daemon.post('/v1/watches', { match: { argv: 'x' } }, as('observer'))).status, 403);
  for (const [name, seen, deleted] of [
    ['other', 404, 404],
    ['observer', 200, 403],
    ['admin', 200, 204],
  ] as const) {
    t.equal((await daemon.get(`/v1/watches/${id}`, as(name))).status, seen, name);
    t.equal((await daemon.get('/v1/watches', as(name))).body.watches.length, seen === 200 ? 1 : 0);
    t.equal((await daemon.request('DELETE', `/v1/watches/${id}`, as(name))).status, deleted, name);
  }
  const strange = await daemon.get('/v1/watches/w_nosuch', as('other'));
  const anothers = await daemon.get(
    `/v1/watches/${(await watch(daemon, { argv: 'x' }, {}, as('one'))).id}`,
    as('other'),
  );
  t.equal(strange.body.detail, anothers.body.detail);
  t.equal(strange.body.errno, anothers.body.errno);
});

t.test('a client may have a hundred watches', async (t) => {
  const daemon = await Daemon.start(t);
  for (let made = 0; made < 100; made += 1)
    t.equal((await daemon.post('/v1/watches', { match: { argv: mark() } })).status, 201);
  t.match(await daemon.post('/v1/watches', { match: { argv: 'x' } }), { status: 429, body: { errno: 'EDQUOT' } });
  const [{ id }] = (await daemon.get('/v1/watches')).body.watches;
  await daemon.request('DELETE', `/v1/watches/${id}`);
  t.equal((await daemon.post('/v1/watches', { match: { argv: mark() } })).status, 201);
});

t.test('a request that is repeated with its key creates one watch', async (t) => {
  const directory = temporaryDirectory(t);
  const daemon = await Daemon.start(t, { directory });
  const keyed = { headers: { 'idempotency-key': 'a key' } };
  const body = { match: { argv: mark() } };
  const first = await daemon.post('/v1/watches', body, keyed);
  const again = await daemon.post('/v1/watches', body, keyed);
  t.same(again.body, first.body);
  t.equal(again.headers['idempotent-replayed'], 'true');
  t.equal(again.headers.location, first.headers.location);
  await daemon.kill();
  const heir = await Daemon.start(t, { directory });
  t.equal((await heir.post('/v1/watches', body, keyed)).body.id, first.body.id, 'after a restart too');
  t.equal((await heir.get('/v1/watches')).body.watches.length, 1);
  t.equal((await heir.post('/v1/watches', { match: { argv: mark() } }, keyed)).status, 422);
});

t.test('an invalid watch is refused', async (t) => {
  const daemon = await Daemon.start(t);
  for (const body of [
    {},
    { match: {} },
    { match: { pid: 1 } },
    { match: { argv: 'x' }, existing: 'yes' },
    { match: { argv: 'x' }, labels: { '': 'x' } },
    { match: { argv: 'x' }, dup: 'x' },
  ])
    t.match(await daemon.post('/v1/watches', body), { status: 400, body: { errno: 'EINVAL' } }, JSON.stringify(body));
  t.match(await daemon.get('/v1/watches?limit=1'), { status: 400 });
  t.match(await daemon.request('PATCH', '/v1/watches/x'), { status: 405 });
});

t.test('a full disk refuses a new watch, and a damaged journal loses none', async (t) => {
  const directory = temporaryDirectory(t);
  const fault = join(directory, 'fault');
  const daemon = await Daemon.start(t, { directory, env: withFaults(fault) });
  const name = mark();
  const { id } = await watch(daemon, { argv: `${name} *` });
  const passed = await watch(daemon, { argv: `${name} *` }, { existing: true });
  await begun(t, name);
  await eventually(async () => (await daemon.get(`/v1/watches/${id}`)).body.opened === 1);
  writeFileSync(fault, 'disk full');
  t.match(await daemon.post('/v1/watches', { match: { argv: 'x' } }), { status: 503, body: { errno: 'ENOSPC' } });
  t.equal((await daemon.get('/v1/watches')).body.watches.length, 2);
  rmSync(fault);
  await eventually(async () => (await daemon.get('/readyz')).status === 200);
  writeFileSync(fault, 'damaged');
  await daemon.spawn(['true']);
  await daemon.logged('the journal was damaged and is replaced by a new one: its records are lost');
  await daemon.kill();
  const heir = await Daemon.start(t, { directory });
  t.match((await heir.get('/v1/watches')).body.watches, [
    { id: passed.id, opened: 1 },
    { id, opened: 1 },
  ]);
  const opened = (await heir.get('/v1/events?since=0&type=opened')).body.events.filter(
    ({ watch }: { watch?: string }) => watch !== undefined,
  );
  t.same(opened, [], 'nothing is opened twice');
});
