import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Notifier } from '../src/kernel/notify.ts';
import { Pidfd } from '../src/kernel/pidfd.ts';
import { look, makePipe } from '../src/kernel/pipe.ts';
import { DescriptorStore, pidfdName, pidfdsIn } from '../src/processes/descriptor-store.ts';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';

const STORE = join(import.meta.dirname, 'support/store.py');

/** A descriptor store, and daemons that receive its contents. */
async function withStore(t: Test) {
  const directory = temporaryDirectory(t);
  const notify = join(directory, 'notify');
  const control = join(directory, 'control');
  const keeper = spawn('python3', [STORE, 'keep', notify, control], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => keeper.kill());
  const said: string[] = [];
  const lines = createInterface({ input: keeper.stdout });
  await once(lines, 'line');
  lines.on('line', (line) => {
    if (/FDSTORE/.test(line)) said.push(line);
  });
  const start = (env: Record<string, string> = {}): Promise<Daemon> =>
    Daemon.start(t, {
      directory,
      env: { NOTIFY_SOCKET: notify, ...env },
      prefix: ['python3', STORE, 'give', control],
    });
  return { start, said, keeper, notify };
}

/** Returns a sender to a service manager, which may be absent. */
function notifierTo(path: string): Notifier {
  process.env.NOTIFY_SOCKET = path;
  const notifier = Notifier.fromEnvironment()!;
  delete process.env.NOTIFY_SOCKET;
  return notifier;
}

/** Starts a child of this test. */
function sleeper(t: Test): { pid: number; end(): Promise<unknown> } {
  const child = spawn('sleep', ['100'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  const exit = once(child, 'exit');
  return {
    pid: child.pid!,
    end: () => {
      child.kill('SIGKILL');
      return exit;
    },
  };
}

t.test('after a crash the outcomes of processes that lost their parent are known', async (t) => {
  const { start, said } = await withStore(t);
  const daemon = await start();
  const exits = await daemon.spawn(['sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done'], {
    nonblocking: true,
  });
  const killed = await daemon.spawn(['sleep', '100']);
  const twin = (await daemon.post('/v1/handles', { open: { pid: killed.process.pid } })).body;
  const living = await daemon.spawn(['sleep', '100']);
  const before = await daemon.spawn(['sh', '-c', 'exit 2']);
  await daemon.waitid(before.id);
  await eventually(() => said.some((line) => line.includes('FDSTOREREMOVE')));
  t.equal(said.filter((line) => line.includes('FDSTORE=1')).length, 4, 'one per process');
  t.ok(said.filter((line) => line.includes('FDSTORE=1')).every((line) => line.includes('FDPOLL=0')));
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  process.kill(exits.process.pid, 'SIGTERM');
  process.kill(killed.process.pid, 'SIGKILL');
  // Init is expected to reap it, which it sometimes does not do; then the outcome is unknown.
  const areGone = (): boolean => [exits, killed].every(({ process: child }) => stateOf(child.pid) === null);
  const reaped = await eventually(areGone, 'init reaps them', 10_000).then(
    () => true,
    () => false,
  );

  const heir = await start();
  const outcome = async (id: string): Promise<unknown> => (await heir.get(`/v1/handles/${id}`)).body;
  const known = (outcome: unknown): unknown => ({
    state: 'exited',
    relation: 'foreign',
    outcome: reaped ? outcome : null,
  });
  t.match(await outcome(exits.id), known({ reason: 'exited', exitCode: 7 }));
  for (const { id } of [killed, twin]) t.match(await outcome(id), known({ reason: 'killed', signal: 'SIGKILL' }));
  t.match(await outcome(living.id), { state: 'running', relation: 'foreign' });
  t.match((await heir.waitid(before.id)).body, { errno: 'ECHILD' });
  const names = (await heir.events(exits.id)).map(({ event }) => event);
  t.same(names, reaped ? ['opened', 'exited', 'reaped'] : ['opened', 'exited']);
  t.equal((await heir.request('PATCH', `/v1/handles/${twin.id}`, { body: { nonblocking: true } })).status, 200);
  t.match(await outcome(killed.id), { nonblocking: false }, 'separate descriptions');
  await heir.upgrade();
  t.match(await outcome(living.id), { state: 'running', relation: 'foreign' }, 'and an upgrade after that');
  await heir.request('DELETE', `/v1/handles/${living.id}`);
  t.equal(await heir.stop(), 0);
  process.kill(living.process.pid, 'SIGKILL');
  const last = await start();
  t.equal(await last.stop(), 0);
});

t.test('an end that was reported before a crash is reported as reaped after it, once', async (t) => {
  const { start } = await withStore(t);
  const daemon = await start();
  const parent = spawn(
    'python3',
    [
      '-c',
      `import os
pid = os.fork()
if pid == 0: os.execvp('sleep', ['sleep', '100'])
print(pid, flush=True)
input()
os.waitpid(pid, 0)
print('reaped', flush=True)
input()`,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  t.teardown(() => parent.kill('SIGKILL'));
  const lines = createInterface({ input: parent.stdout });
  const pid = Number((await once(lines, 'line'))[0]);
  const { id } = (await daemon.post('/v1/handles', { open: { pid } })).body;
  process.kill(pid, 'SIGKILL');
  await daemon.post('/v1/poll', { handles: [id] });
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'exited', outcome: null });
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const reaped = once(lines, 'line');
  parent.stdin.write('\n');
  await reaped;
  const heir = await start();
  t.match((await heir.get(`/v1/handles/${id}`)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  t.same(
    (await heir.events(id)).map(({ event }) => event),
    ['opened', 'exited', 'reaped'],
  );
  t.equal(await heir.stop(), 0);
});

t.test('stored pidfds without a handle, or of another process, are removed and closed', async (t) => {
  const { start, said, notify } = await withStore(t);
  const daemon = await start();
  const process1 = sleeper(t);
  const { id } = (await daemon.post('/v1/handles', { open: { pid: process1.pid } })).body;
  await eventually(() => said.length === 1);
  const name = /FDNAME=(\S+)/.exec(said[0]!)![1]!;
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const manager = notifierTo(notify);
  using wrong = Pidfd.open(process.pid);
  manager.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  for (const stale of [name, 'waitd-999999999', 'waitd-999999999', 'waitd-x', 'other'])
    manager.send(`FDSTORE=1\nFDNAME=${stale}`, wrong);
  await eventually(() => said.length === 7);

  const heir = await start();
  t.match((await heir.get(`/v1/handles/${id}`)).body, { state: 'running', process: { pid: process1.pid } });
  await eventually(() => said.length === 10);
  t.same(said.slice(7), [
    `FDSTOREREMOVE=1 FDNAME=${name}`,
    `FDSTORE=1 FDPOLL=0 FDNAME=${name}`,
    'FDSTOREREMOVE=1 FDNAME=waitd-999999999',
  ]);
  const ofThisTest = readdirSync(`/proc/${heir.pid}/fdinfo`).filter((fd) =>
    readFileSync(`/proc/${heir.pid}/fdinfo/${fd}`, 'utf8').includes(`\nPid:\t${process.pid}\n`),
  );
  t.equal(ofThisTest.length, 2, 'descriptors with other names are left alone');
  await heir.upgrade();
  heir.child.kill('SIGKILL');
  await heir.exited;
  await process1.end();
  const last = await start();
  t.match((await last.get(`/v1/handles/${id}`)).body, { outcome: { reason: 'killed', signal: 'SIGKILL' } });
  await eventually(() => said.length === 11);
  t.equal(said[10], `FDSTOREREMOVE=1 FDNAME=${name}`, 'no descriptor is sent twice');
  t.equal(await last.stop(), 0);
});

t.test('input that is stored stays open over a crash, and ends when it is closed after that', async (t) => {
  const { start, said } = await withStore(t);
  const daemon = await start();
  const output = join(temporaryDirectory(t), 'output');
  const file = { file: output };
  const cat = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: file });
  const ended = await daemon.spawn(['cat'], {}, { stdin: 'pipe' });
  const reader = await daemon.spawn(['cat'], {}, { stdin: 'pipe' });
  await daemon.write(cat.id, 'before ');
  await daemon.write(ended.id, '', '?eof=true');
  await daemon.waitid(ended.id);
  const names = (): string[] => {
    const stored = new Set<string>();
    for (const line of said) {
      const name = /FDNAME=(\S+)/.exec(line)![1]!;
      if (line.includes('FDSTOREREMOVE')) stored.delete(name);
      else stored.add(name);
    }
    return [...stored].filter((name) => name.startsWith('waitd-pipe-'));
  };
  await eventually(() => names().length === 2, 'the input of an ended program is removed');
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  process.kill(reader.process.pid, 'SIGKILL');

  const heir = await start();
  t.match((await heir.write(cat.id, 'between ')).body, { accepted: 8 });
  await eventually(() => names().length === 1, 'nobody reads the other one any more');
  t.match((await heir.write(reader.id, 'x')).body, { errno: 'EPIPE' });
  await heir.upgrade();
  t.match((await heir.write(cat.id, 'after', '?eof=true')).body, { accepted: 5 });
  await heir.post('/v1/poll', { handles: [cat.id] });
  t.equal(readFileSync(output, 'utf8'), 'before between after');
  await eventually(() => names().length === 0);
  t.equal(await heir.stop(), 0);
});

t.test('a terminal that is stored stays open over a crash, with what was shown meanwhile', async (t) => {
  const { start } = await withStore(t);
  const daemon = await start();
  const { id } = await daemon.spawn(['bash', '--norc', '-i'], {}, { tty: { rows: 24, cols: 80 }, env: { PS1: '> ' } });
  const shown = async (on: Daemon, text: string): Promise<void> =>
    eventually(async () => (await on.get(`/v1/handles/${id}/stdout`)).text.includes(text), text);
  await shown(daemon, '> ');
  await daemon.write(id, 'kept=before; (sleep 0.2; echo mean""while) &\r');
  await shown(daemon, '[1]');
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  await setTimeout(300); // until the background job has written

  const heir = await start();
  await shown(heir, 'meanwhile\r\n');
  await heir.write(id, 'echo $kept$(stty size)\r');
  await shown(heir, 'before24 80\r\n');
  t.equal((await heir.request('PUT', `/v1/handles/${id}/tty`, { body: { rows: 50, cols: 132 } })).status, 204);
  await heir.upgrade();
  await heir.write(id, 'stty size; exit 5\r');
  await shown(heir, '50 132\r\n');
  await heir.post('/v1/poll', { handles: [id] });
  t.match((await heir.get(`/v1/handles/${id}`)).body, { state: 'exited', relation: 'foreign' });
  t.match((await heir.write(id, 'x')).body, { errno: 'EPIPE' });
  t.equal(await heir.stop(), 0);
});

t.test('stored input of another process than the journal knows is closed', async (t) => {
  const { start, said, notify } = await withStore(t);
  const daemon = await start();
  const { id } = await daemon.spawn(['sleep', '1000'], {}, { stdin: 'pipe' });
  await eventually(() => said.some((line) => line.includes('waitd-pipe-')));
  const name = /FDNAME=(waitd-pipe-\S+)/.exec(said.join('\n'))![1]!;
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  const manager = notifierTo(notify);
  manager.send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  const { reader, writer } = makePipe();
  const wrong = [name.replace(/\d+$/, '1'), 'waitd-pipe-999999999-1', name.replace('pipe', 'tty')];
  for (const stale of wrong) manager.send(`FDSTORE=1\nFDNAME=${stale}`, writer);
  writer.close();
  const heir = await start();
  t.match((await heir.write(id, 'x')).body, { errno: 'EPIPE' });
  await eventually(() => wrong.every((stale) => said.includes(`FDSTOREREMOVE=1 FDNAME=${stale}`)));
  await eventually(() => look(reader).hungUp, 'no daemon holds the pipe');
  reader.close();
  await heir.signal(id, 'SIGKILL');
  await heir.post('/v1/poll', { handles: [id] });
  t.equal(await heir.stop(), 0);
});

t.test('the store holds no more than the kernel lets a service be started with', (t) => {
  const store = new DescriptorStore(notifierTo('/nonexistent/notify'), [1, 2, 3].map(pidfdName));
  using pidfd = Pidfd.open(process.pid);
  for (let id = 4; id < 20_000; id += 1) store.put(pidfdName(id), pidfd);
  store.remove(pidfdName(1));
  store.remove(pidfdName(10_000));
  store.put(pidfdName(20_000), pidfd);
  const starts = (ids: readonly number[]): boolean =>
    spawnSync('true', { env: { ...process.env, LISTEN_FDNAMES: ids.map(pidfdName).join(':') } }).status === 0;
  const kept = pidfdsIn(store.close());
  t.ok(kept.length > 10_000, `${kept.length}`);
  t.same(
    [1, 2, 10_000, 20_000].filter((id) => kept.includes(id)),
    [2, 20_000],
  );
  t.ok(starts(kept));
  t.notOk(starts(Array.from({ length: 20_000 }, (_, id) => id)));
  t.end();
});

t.test('a full queue delays nothing and loses nothing', async (t) => {
  const { start, said, keeper } = await withStore(t);
  const daemon = await start();
  keeper.kill('SIGSTOP');
  const handles = await Promise.all(Array.from({ length: 60 }, () => daemon.spawn(['sleep', '100'])));
  for (const { id } of handles.slice(0, 20)) {
    await daemon.signal(id, 'SIGKILL');
    await daemon.waitid(id);
  }
  keeper.kill('SIGCONT');
  const stored = (): Set<string> => {
    const names = new Set<string>();
    for (const line of said) {
      const name = /FDNAME=(\S+)/.exec(line)![1]!;
      if (line.includes('FDSTOREREMOVE')) names.delete(name);
      else names.add(name);
    }
    return names;
  };
  await eventually(() => stored().size === 40);
  t.pass('short-lived processes are not stored');
  for (const { id } of handles.slice(20)) await daemon.signal(id, 'SIGKILL');
  await eventually(() => stored().size === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('a missing service manager is not an error', async (t) => {
  for (const NOTIFY_SOCKET of ['/nonexistent/notify', '@nobody-listens-here', 'nonsense', '']) {
    const daemon = await Daemon.start(t, { env: { NOTIFY_SOCKET } });
    t.match((await daemon.waitid((await daemon.spawn(['sh', '-c', 'exit 3'])).id)).body, { outcome: { exitCode: 3 } });
    t.equal(await daemon.stop(), 0);
  }
});
