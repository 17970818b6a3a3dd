import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';

const STORE = join(import.meta.dirname, 'support/store.py');

/** A descriptor store, and daemons that are started with what is in it. */
async function withStore(t: Test) {
  const directory = temporaryDirectory(t);
  const notify = join(directory, 'notify');
  const control = join(directory, 'control');
  const keeper = spawn('python3', [STORE, 'keep', notify, control], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => keeper.kill());
  const said: string[] = [];
  const lines = createInterface({ input: keeper.stdout });
  await once(lines, 'line');
  lines.on('line', (line) => said.push(line));
  const start = (env: Record<string, string> = {}): Promise<Daemon> =>
    Daemon.start(t, {
      directory,
      env: { NOTIFY_SOCKET: notify, ...env },
      prefix: ['python3', STORE, 'give', control],
    });
  return { start, said, keeper };
}

t.test('after a crash it is known how processes ended that had no parent any more', async (t) => {
  const { start, said } = await withStore(t);
  const daemon = await start();
  const exits = await daemon.spawn(['sh', '-c', 'sleep 0.5; exit 7'], { nonblocking: true });
  const killed = await daemon.spawn(['sleep', '100']);
  const twin = (await daemon.post('/v1/handles', { open: { pid: killed.process.pid } })).body;
  const living = await daemon.spawn(['sleep', '100']);
  const before = await daemon.spawn(['sh', '-c', 'exit 2']);
  await daemon.waitid(before.id);
  await eventually(() => said.some((line) => line.includes('FDSTOREREMOVE')));
  t.equal(said.filter((line) => line.includes('FDSTORE=1')).length, 4, 'one for each process');
  t.ok(said.filter((line) => line.includes('FDSTORE=1')).every((line) => line.includes('FDPOLL=0')));
  daemon.child.kill('SIGKILL');
  await daemon.exited;
  process.kill(killed.process.pid, 'SIGKILL');
  // To be reaped by init, which here and there it leaves undone; then nobody can know how they ended.
  const gone = eventually(() => [exits, killed].every(({ process: child }) => stateOf(child.pid) === null));
  const reaped = await Promise.race([gone.then(() => true), setTimeout(10_000, false, { ref: false })]);

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
  t.match(await outcome(killed.id), { nonblocking: false }, 'descriptions of their own');
  await heir.upgrade();
  t.match(await outcome(living.id), { state: 'running', relation: 'foreign' }, 'and an upgrade after that');
  await heir.request('DELETE', `/v1/handles/${living.id}`);
  t.equal(await heir.stop(), 0);
  process.kill(living.process.pid, 'SIGKILL');
  const last = await start();
  t.equal(await last.stop(), 0);
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
  t.pass('what came and went meanwhile is not there');
  for (const { id } of handles.slice(20)) await daemon.signal(id, 'SIGKILL');
  await eventually(() => stored().size === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('a manager that is not there is no fault', async (t) => {
  for (const NOTIFY_SOCKET of ['/nonexistent/notify', '@nobody-listens-here', 'nonsense', '']) {
    const daemon = await Daemon.start(t, { env: { NOTIFY_SOCKET } });
    t.match((await daemon.waitid((await daemon.spawn(['sh', '-c', 'exit 3'])).id)).body, { outcome: { exitCode: 3 } });
    t.equal(await daemon.stop(), 0);
  }
});
