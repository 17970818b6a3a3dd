import { readFileSync } from 'node:fs';
import t from 'tap';
import { Daemon } from './support/harness.ts';

const residentKiB = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

t.test('repeated subscribing and unsubscribing leaks no memory and delays no other reader', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['true']);
  await daemon.waitid(id);
  const socket = daemon.ws();
  await socket.first(({ type }) => type === 'hello');
  const handles = [id];
  let rounds = 0;
  let looked = 0;
  let replies = 0;
  // Each frame is checked once: there are tens of thousands.
  const isAnswered = (): boolean => {
    for (; looked < socket.frames.length; looked += 1) if (socket.frames[looked]!.type === 'subscribed') replies += 1;
    return replies === rounds;
  };
  const round = async (frames: number): Promise<void> => {
    for (let sent = 0; sent < frames; sent += 1) {
      socket.send({ type: 'subscribe', handles });
      socket.send({ type: 'unsubscribe', handles });
    }
    rounds += frames;
    t.equal((await daemon.get('/livez')).status, 200);
    await socket.until(isAnswered);
  };
  await round(10_000);
  const before = residentKiB(daemon.pid);
  for (let times = 0; times < 3; times += 1) await round(10_000);
  const more = residentKiB(daemon.pid) - before;
  // A stored range per subscription would take twice as much.
  t.ok(more < 45_000, `${more} KiB more for 30,000 subscriptions`);
  t.same(
    socket.events.map(({ event }) => event),
    ['opened', 'exited', 'settled'],
    'each event once',
  );
  socket.close();
});

t.test('a handle that is subscribed to repeatedly delivers each event once, also events in between', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn(['sleep', '1000']);
  const socket = daemon.ws(`?handle=${id}`);
  const subscribed = (count: number) =>
    socket.until(() => socket.frames.filter(({ type }) => type === 'subscribed').length === count);
  await subscribed(1);
  for (let times = 1; times <= 3; times += 1) {
    socket.send({ type: 'unsubscribe', handles: [id] });
    await daemon.signal(id, 'SIGSTOP');
    await daemon.waitid(id, { options: ['WSTOPPED'] });
    socket.send({ type: 'subscribe', handles: [id] });
    await subscribed(2 * times);
    await daemon.signal(id, 'SIGCONT');
    await socket.until(() => socket.events.filter(({ event }) => event === 'continued').length === times);
    socket.send({ type: 'subscribe', handles: [id] });
    await subscribed(2 * times + 1);
  }
  const pairs = ['stopped', 'continued'];
  t.same(
    socket.events.map(({ event }) => event),
    ['opened', ...pairs, ...pairs, ...pairs],
  );
  await daemon.signal(id, 'SIGKILL');
  socket.close();
});
