import t from 'tap';
import { Daemon, eventually } from './support/harness.ts';

const daemon = await Daemon.start(t);
const tty = { rows: 24, cols: 80 };

/** Reads what a terminal has shown so far. */
async function shown(id: string): Promise<string> {
  return (await daemon.get(`/v1/handles/${id}/stdout`)).text;
}

t.test('a program gets a terminal as its standard streams and its controlling terminal', async (t) => {
  const script = 'tty; stty size; echo $TERM; echo to the terminal > /dev/tty; echo error >&2; ls /proc/self/fd';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { tty });
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'exited', exitCode: 0 } });
  t.match(
    await shown(id),
    /^\/dev\/pts\/\d+\r\n24 80\r\nxterm-256color\r\nto the terminal\r\nerror\r\n0 {2}1 {2}2 {2}3\r\n$/,
  );
});

/** Waits until a terminal has shown something. */
async function until(id: string, pattern: RegExp): Promise<void> {
  await eventually(async () => pattern.test(await shown(id)), `the terminal shows ${pattern}`);
}

t.test('a program learns a new size, and SIGWINCH tells it', async (t) => {
  const script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.02; done";
  const { id } = await daemon.spawn(['bash', '-c', script], {}, { tty });
  await until(id, /ready/);
  t.match(await daemon.request('PUT', `/v1/handles/${id}/tty`, { body: { rows: 50, cols: 132 } }), { status: 204 });
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'exited', exitCode: 3 } });
  await until(id, /50 132/);
});

t.test('a size is refused without a terminal, and once it is closed', async (t) => {
  const resize = (id: string, body: unknown) => daemon.request('PUT', `/v1/handles/${id}/tty`, { body });
  const plain = await daemon.spawn(['true'], {}, { stdin: 'pipe' });
  t.match(await resize(plain.id, tty), { status: 422, body: { errno: 'ENOTTY' } });
  const { id } = await daemon.spawn(['true'], {}, { tty });
  t.match(await resize(id, { rows: 0, cols: 80 }), { status: 400, body: { errno: 'EINVAL' } });
  t.match(await resize(id, { rows: 24, cols: 65536 }), { status: 400, body: { errno: 'EINVAL' } });
  t.match(await resize(id, { rows: 24 }), { status: 400, body: { errno: 'EINVAL' } });
  await daemon.get(`/v1/handles/${id}/stdout?follow=1`);
  t.match(await resize(id, tty), { status: 410, body: { errno: 'EPIPE' } });
  t.match(await daemon.write(id, 'late'), { status: 410, body: { errno: 'EPIPE' } });
});

t.test('an interactive shell ends by terminate, and a program that handles SIGTERM ends as it wants', async (t) => {
  const shell = await daemon.spawn(['bash', '--norc', '-i'], {}, { tty, env: { PS1: 'ready> ' } });
  await until(shell.id, /ready> /);
  t.match((await daemon.post(`/v1/handles/${shell.id}/terminate`, { graceMs: 60_000 })).body, {
    outcome: { reason: 'killed', signal: 'SIGHUP' },
  });
  const script = "trap 'sleep 0.1; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
  const program = await daemon.spawn(['bash', '-c', script], {}, { tty });
  await until(program.id, /ready/);
  t.match((await daemon.post(`/v1/handles/${program.id}/terminate`, { graceMs: 60_000 })).body, {
    outcome: { reason: 'exited', exitCode: 7 },
  });
});

t.teardown(() => daemon.stop());
