import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { Daemon, temporaryDirectory } from './support/harness.ts';

const STORE = join(import.meta.dirname, 'support/store.py');

/** A service manager that records its messages. */
async function listening(t: Test) {
  const directory = temporaryDirectory(t);
  const notify = join(directory, 'notify');
  const keeper = spawn('python3', [STORE, 'keep', notify, join(directory, 'control')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => keeper.kill());
  const said: string[] = [];
  let look = (): void => {};
  const lines = createInterface({ input: keeper.stdout });
  await once(lines, 'line');
  lines.on('line', (line) => {
    if (/FDSTORE/.test(line)) return;
    said.push(line);
    look();
  });
  /** Returns the first matching message from an index on. */
  const hears = async (fits: RegExp, from = 0): Promise<string> => {
    for (;;) {
      const found = said.slice(from).find((line) => fits.test(line));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        look = resolve;
      });
    }
  };
  const env = { NOTIFY_SOCKET: notify };
  return { directory, env, said, hears };
}

t.test('the service manager is notified of readiness, held processes and the stop', async (t) => {
  const { directory, env, said, hears } = await listening(t);
  const daemon = await Daemon.start(t, { directory, env });
  t.equal(await hears(/^READY=1/), 'READY=1 STATUS=0 live handles on 0 processes, 0 subscribers');
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const { id } = await daemon.spawn(['sleep', '100']);
  const { body: second } = await daemon.post('/v1/handles', { dup: id });
  await hears(/^STATUS=2 live handles on 1 processes, 1 subscribers$/);
  await daemon.request('DELETE', `/v1/handles/${second.id}`);
  await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`);
  socket.close();
  await hears(/^STATUS=0 live handles on 0 processes, 0 subscribers$/);
  t.equal(await daemon.stop(), 0);
  t.match(said.at(-1), /^STOPPING=1 STATUS=stopping$/);
  t.notOk(
    said.some((line) => /WATCHDOG/.test(line)),
    'without a request',
  );
});

t.test('an upgrade is reported as a reload, whether it succeeds or is refused', async (t) => {
  const { directory, env, said, hears } = await listening(t);
  const program = join(directory, 'policy.yaml');
  writeFileSync(program, '{"default": {"spawn": true, "signal": true}}');
  const daemon = await Daemon.start(t, { directory, env, args: ['--policy', program] });
  await hears(/^READY=1/);
  const monotonic = (): bigint => process.hrtime.bigint() / 1000n;
  const before = monotonic();
  await daemon.upgrade();
  const usec = BigInt(/^RELOADING=1 MONOTONIC_USEC=(\d+)$/.exec(await hears(/^RELOADING/))![1]!);
  t.ok(before <= usec && usec <= monotonic(), 'by the manager’s clock');
  t.match(await hears(/^READY=1/, said.findIndex((line) => line.startsWith('RELOADING')) + 1), /STATUS=0 live/);

  const from = said.length;
  writeFileSync(program, 'clients: [');
  await daemon.logged('policy refused; the previous version stays in force');
  daemon.child.kill('SIGHUP');
  await hears(/^RELOADING=1/, from);
  t.match(await hears(/^READY=1/, from), /STATUS=0 live handles .*; upgrade refused: waitd: /);
});

t.test(
  'the watchdog is fed while the event loop runs, also after an upgrade, and children have no variable of it',
  async (t) => {
    const { directory, env, said, hears } = await listening(t);
    const daemon = await Daemon.start(t, { directory, env: { ...env, WATCHDOG_USEC: '100000' } });
    const fed = async (times: number): Promise<void> => {
      for (let count = 0, from = said.length; count < times; count += 1) {
        await hears(/^WATCHDOG=1$/, from);
        from = said.length;
      }
    };
    await fed(3);
    await daemon.upgrade();
    await fed(3);
    const { id } = await daemon.spawn(['env'], {}, { stdout: 'capture' });
    await daemon.waitid(id);
    const { text } = await daemon.get(`/v1/handles/${id}/stdout`);
    t.match(text, /^PATH=/m);
    t.notMatch(text, /NOTIFY|WATCHDOG|LISTEN/);
  },
);

t.test('a watchdog of another process is not fed', async (t) => {
  const { directory, env, said } = await listening(t);
  const daemon = await Daemon.start(t, { directory, env: { ...env, WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' } });
  await daemon.stop();
  t.notOk(said.some((line) => /WATCHDOG/.test(line)));
});

t.test('a stop that ends children first requests the time for that', async (t) => {
  const { directory, env, hears } = await listening(t);
  const daemon = await Daemon.start(t, { directory, env, args: ['--stop-children=20s'] });
  await daemon.spawn(['sleep', '100']);
  t.equal(await daemon.stop(), 0);
  t.match(await hears(/^STOPPING=1/), /EXTEND_TIMEOUT_USEC=25000000$/);
});

t.test('a service manager that does not listen delays nothing', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'notify'));
  const daemon = await Daemon.start(t, { directory, env: { NOTIFY_SOCKET: join(directory, 'notify') } });
  t.equal((await daemon.get('/readyz')).status, 200);
  t.equal(await daemon.stop(), 0);
});
