import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { until } from './support/caller-on-socket.ts';
import { Daemon, eventually, temporaryDirectory } from './support/harness.ts';

/** Starts a daemon with this path as its standard output. */
async function startWritingTo(t: Test, path: string): Promise<Daemon> {
  const daemon = Daemon.begin(t, { prefix: ['sh', '-c', 'out=$1; shift; exec "$@" > "$out"', 'sh', path] });
  await until(daemon.socket);
  return daemon;
}

const dropped = async (daemon: Daemon): Promise<number> =>
  Number(/^waitd_log_lines_dropped_total (\d+)$/m.exec((await daemon.get('/metrics')).text)?.[1] ?? 0);

/** Makes the daemon write audit lines of about four thousand bytes each. */
async function beAudited(daemon: Daemon, times: number): Promise<void> {
  const argv = [`/${'n'.repeat(4095)}`];
  for (let at = 0; at < times; at += 1) t.equal((await daemon.post('/v1/handles', { spawn: { argv } })).status, 422);
}

/** Reads what is available now. */
function readAll(fd: number): string {
  const buffer = Buffer.alloc(1 << 16);
  let text = '';
  for (;;)
    try {
      const count = readSync(fd, buffer);
      if (count === 0) return text;
      text += buffer.toString('latin1', 0, count);
    } catch {
      return text;
    }
}

t.test('with a log that has no reader the daemon continues, and later logs how many lines are missing', async (t) => {
  const fifo = join(temporaryDirectory(t), 'log');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const daemon = await startWritingTo(t, fifo);
  await beAudited(daemon, 400);
  const missing = await dropped(daemon);
  t.ok(missing > 0, 'lines beyond the buffer are dropped');
  t.equal((await daemon.get('/livez')).status, 200);
  t.match(await daemon.spawn(['true']), { state: /running|exited/ });
  let text = '';
  await eventually(() => {
    text += readAll(reader);
    return text.includes('lines were dropped');
  });
  const lines = text.trimEnd().split('\n');
  t.doesNotThrow(() => lines.map((line) => JSON.parse(line)), 'every line is whole');
  const { dropped: told } = JSON.parse(lines.find((line) => line.includes('lines were dropped'))!);
  t.ok(told >= missing, `${told} of ${missing}`);
  await beAudited(daemon, 1);
  await eventually(() => {
    text = readAll(reader);
    return text.includes('"audit":"spawn"');
  });
});

t.test('with a log that has no reader the daemon can be upgraded and stopped', async (t) => {
  const fifo = join(temporaryDirectory(t), 'log');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  t.teardown(() => closeSync(reader));
  const daemon = await startWritingTo(t, fifo);
  const { id } = await daemon.spawn(['sleep', '1000']);
  await beAudited(daemon, 100);
  const startedAt = async () =>
    /^process_start_time_seconds (.*)$/m.exec((await daemon.get('/metrics').catch(() => ({ text: '' }))).text)?.[1];
  const before = Number(await startedAt());
  process.kill(daemon.pid, 'SIGHUP');
  await eventually(async () => Number((await startedAt()) ?? 0) > before + 0.1);
  t.match(await daemon.get(`/v1/handles/${id}`), { status: 200, body: { state: 'running' } });
  t.match(await daemon.request('DELETE', `/v1/handles/${id}?signal=SIGKILL`), { status: 204 });
  t.equal(await daemon.stop(), 0);
});

t.test('a log on a full disk, or whose reader has left, loses lines and nothing else', async (t) => {
  const full = await startWritingTo(t, '/dev/full');
  await full.spawn(['true']);
  t.ok((await dropped(full)) > 0);
  const fifo = join(temporaryDirectory(t), 'log');
  execFileSync('mkfifo', [fifo]);
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  const left = await startWritingTo(t, fifo);
  closeSync(reader);
  await left.spawn(['true']);
  t.ok((await dropped(left)) > 0);
});

t.test('an audit file that is a FIFO without a reader is refused at the start', async (t) => {
  const fifo = join(temporaryDirectory(t), 'audit');
  execFileSync('mkfifo', [fifo]);
  const daemon = Daemon.begin(t, { args: ['--audit', fifo] });
  t.equal(await daemon.exited, 1);
  t.match(daemon.log.join(''), /--audit .* cannot be opened for writing: ENXIO/);
});
