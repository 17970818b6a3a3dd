import t from 'tap';
import { Daemon } from './support/harness.ts';

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
t.teardown(() => daemon.stop());
