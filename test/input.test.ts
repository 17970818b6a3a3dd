import t from 'tap';
import { Daemon } from './support/harness.ts';

const daemon = await Daemon.start(t);

t.test('a program reads what is written to its pipe, then the end', async (t) => {
  const { id } = await daemon.spawn(['cat'], {}, { stdin: 'pipe', stdout: 'capture' });
  t.match(await daemon.write(id, 'before '), { status: 200, body: { accepted: 7 } });
  t.match(await daemon.write(id, 'after', '?eof=true'), { status: 200, body: { accepted: 5 } });
  t.match(await daemon.write(id, 'late'), { status: 410, body: { errno: 'EPIPE' } });
  t.match((await daemon.waitid(id)).body, { outcome: { reason: 'exited', exitCode: 0 } });
  t.equal((await daemon.get(`/v1/handles/${id}/stdout`)).text, 'before after');
});

t.teardown(() => daemon.stop());
