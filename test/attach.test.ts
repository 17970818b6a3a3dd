import t from 'tap';
import { Attached } from './support/attached.ts';
import { Daemon } from './support/harness.ts';

const daemon = await Daemon.start(t);
const PIPED = { stdin: 'pipe', stdout: 'capture' };
const CAPTURED = { stdout: 'capture', stderr: 'capture' };

t.test('a socket carries the input, both streams, the exit and the end', async (t) => {
  const script = 'read -r line; echo "out $line"; echo "err $line" >&2; cat; exit 7';
  const { id } = await daemon.spawn(['sh', '-c', script], {}, { ...PIPED, ...CAPTURED });
  const socket = new Attached(daemon, id);
  t.match(await socket.first('attached'), {
    handle: { id, state: 'running' },
    stdin: 'open',
    stdout: { offset: 0 },
    stderr: { offset: 0 },
  });
  t.equal(socket.ws.protocol, 'waitd.attach.v1');
  await socket.write('hello\nrest');
  socket.send({ type: 'eof' });
  t.match(await socket.first('exited'), { outcome: { reason: 'exited', exitCode: 7 }, rusage: { userUs: Number } });
  await socket.end();
  t.equal(socket.text(), 'out hello\nrest');
  t.equal(socket.text('stderr'), 'err hello\n');
});

t.teardown(() => daemon.stop());
