import { execFileSync, spawn as start } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { readCgroupUsage } from '../src/cgroups/cgroup-usage.ts';
import { ProcessIo } from '../src/processes/process-io.ts';
import { UsageReader } from '../src/processes/usage-reader.ts';
import { asNobody, closedToOthers, homeOf, isRoot } from './support/command.ts';
import { childrenOf, Daemon, eventually, stateOf, temporaryDirectory } from './support/harness.ts';

const program = join(temporaryDirectory(t), 'usage');
execFileSync('gcc', ['-O1', '-o', program, join(import.meta.dirname, 'native/usage.c'), '-lpthread']);

const usageOf = async (daemon: Daemon, id: string) => (await daemon.get(`/v1/handles/${id}/usage`)).body;

/** Since Linux 6.2 the size of a directory of descriptors is their number. */
const countsDescriptors = statSync('/proc/self/fd').size > 0;

const hasIo = existsSync('/proc/self/io');

t.test('the usage of a process is what it uses, of ended threads too', async (t) => {
  const daemon = await Daemon.start(t);
  const file = join(daemon.directory, 'written');
  const argv = [program, '5', '100', '40', file, String(8 << 20), '200'];
  const { id, process } = await daemon.spawn(argv, {}, { stdout: 'capture' });
  const said = async (): Promise<string> => (await daemon.get(`/v1/handles/${id}/stdout`)).text;
  await eventually(async () => (await said()) !== '');
  const before = Number(await said());
  const usage = await usageOf(daemon, id);
  t.match(usage, { threads: 5, processes: 1, descriptors: countsDescriptors ? 100 : null });
  const cpuUs = usage.cpu.userUs + usage.cpu.systemUs;
  // After its own reading it has only written a line.
  t.ok(cpuUs >= before && cpuUs < before + 50_000, `${cpuUs} after ${before} us`);
  t.ok(cpuUs >= 200_000 && usage.cpu.userUs > 0);
  t.ok(usage.rssKiB > 40 * 1024 && usage.rssKiB < 60 * 1024, `${usage.rssKiB} KiB`);
  const io = hasIo ? readFileSync(`/proc/${process.pid}/io`, 'utf8') : '';
  t.equal(usage.writeBytes, hasIo ? Number(/^write_bytes: (\d+)$/m.exec(io)![1]) : null);
  t.equal(usage.readBytes, hasIo ? Number(/^read_bytes: (\d+)$/m.exec(io)![1]) : null);
  const { body: opened } = await daemon.post('/v1/handles', { open: { pid: process.pid } });
  t.match(await usageOf(daemon, opened.id), { threads: 5, rssKiB: usage.rssKiB }, 'on any handle');
  await daemon.signal(id, 'SIGSTOP');
  await eventually(async () => (await daemon.get(`/v1/handles/${id}`)).body.state === 'stopped');
  t.match(await usageOf(daemon, id), { threads: 5 }, 'a stopped process uses what it has');
  await daemon.signal(id, 'SIGKILL');
  const { rusage } = (await daemon.waitid(id)).body;
  t.ok(rusage.userUs + rusage.systemUs >= cpuUs, 'the rusage goes on from there');
  const gone = await daemon.get(`/v1/handles/${id}/usage`);
  t.match(gone, { status: 404, body: { errno: 'ESRCH', handle: id } });
  await daemon.request('DELETE', `/v1/handles/${id}`);
  t.match(await daemon.get(`/v1/handles/${id}/usage`), { status: 410, body: { errno: 'ESTALE' } });
  t.match(await daemon.get('/v1/handles/h_none/usage'), { status: 404, body: { errno: 'EBADF' } });
  t.match(await daemon.get(`/v1/handles/${opened.id}/usage?output=1`), { status: 400 });
  t.equal(await daemon.stop(), 0);
});

t.test('CPU time is exact while a process runs', async (t) => {
  const daemon = await Daemon.start(t);
  const { id } = await daemon.spawn([program, '1', '3', '1', '/dev/null', '0', '3600000']);
  let last = -1;
  for (let round = 0; round < 50; round += 1) {
    const { cpu } = await usageOf(daemon, id);
    const sum = cpu.userUs + cpu.systemUs;
    if (sum < last) t.fail(`${sum} after ${last}`);
    last = sum;
  }
  await eventually(async () => {
    const { cpu } = await usageOf(daemon, id);
    return cpu.userUs + cpu.systemUs > last;
  });
  await daemon.signal(id, 'SIGKILL');
  const { rusage } = (await daemon.waitid(id)).body;
  t.ok(rusage.userUs + rusage.systemUs >= last);
  t.equal(await daemon.stop(), 0);
});

t.test('the descriptors of a process whose main thread has ended are not told', async (t) => {
  const daemon = await Daemon.start(t);
  const script =
    'import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nctypes.CDLL(None).pthread_exit(None)';
  const { id, process } = await daemon.spawn(['python3', '-c', script]);
  await eventually(() => stateOf(process.pid) === 'Z');
  t.match((await daemon.get(`/v1/handles/${id}`)).body, { state: 'running' });
  t.match(await usageOf(daemon, id), { descriptors: null, rssKiB: null, processes: 1 });
  await daemon.signal(id, 'SIGKILL');
  await daemon.waitid(id);
  t.equal(await daemon.stop(), 0);
});

t.test('foreign processes, zombies among them, and many descriptors', async (t) => {
  const daemon = await Daemon.start(t);
  const many = 15_000;
  const child = start(program, ['2', String(many), '1', '/dev/null', '0', '1'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const { body } = await daemon.post('/v1/handles', { open: { pid: child.pid } });
  const descriptors = readdirSync(`/proc/${child.pid}/fd`).length;
  t.ok(descriptors >= many);
  t.match(await usageOf(daemon, body.id), {
    threads: 2,
    descriptors: countsDescriptors ? descriptors : null,
    processes: 1,
  });
  // Its parent does not reap it.
  const parent = start('sh', ['-c', 'sleep 1000 & exec sleep 1001'], { stdio: 'ignore' });
  t.teardown(() => parent.kill('SIGKILL'));
  await eventually(() => childrenOf(parent.pid!).length === 1);
  const [pid = 0] = childrenOf(parent.pid!);
  const { body: zombie } = await daemon.post('/v1/handles', { open: { pid } });
  t.match(await usageOf(daemon, zombie.id), { threads: 1 });
  process.kill(pid, 'SIGKILL');
  await eventually(() => stateOf(pid) === 'Z');
  t.match(await daemon.get(`/v1/handles/${zombie.id}/usage`), { status: 404, body: { errno: 'ESRCH' } });
  t.equal(await daemon.stop(), 0);
});

t.test(
  'what the kernel does not tell is null',
  { skip: isRoot ? closedToOthers : 'only root has other users' },
  async (t) => {
    const directory = homeOf(t);
    const daemon = await Daemon.start(t, { directory, prefix: asNobody });
    const other = start('sleep', ['1000'], { stdio: 'ignore' });
    t.teardown(() => other.kill('SIGKILL'));
    const options = { headers: { authorization: `Bearer ${daemon.token}` } };
    const { body } = await daemon.post('/v1/handles', { open: { pid: other.pid } }, options);
    const usage = (await daemon.get(`/v1/handles/${body.id}/usage`, options)).body;
    t.match(usage, { readBytes: null, writeBytes: null, threads: 1, processes: 1 });
    t.ok(usage.cpu.userUs + usage.cpu.systemUs > 0);
  },
);

t.test('a process that ends while its usage is read: all of it or ESRCH, never of another', async (t) => {
  const daemon = await Daemon.start(t);
  let found = 0;
  let ended = 0;
  for (let round = 0; round < 150; round += 1) {
    const { id } = await daemon.spawn(['sh', '-c', 'exit 0']);
    for (;;) {
      const { status, body } = await daemon.get(`/v1/handles/${id}/usage`);
      if (status === 200) {
        found += 1;
        // One that has begun to end has no memory any more.
        if (body.processes !== 1 || body.threads !== 1 || body.cpu === null) t.fail(JSON.stringify(body));
        continue;
      }
      t.ok(status === 404 && body.errno === 'ESRCH' && body.handle === id);
      ended += 1;
      break;
    }
  }
  t.equal(ended, 150);
  t.comment(`${found} while they ran`);
  t.equal(await daemon.stop(), 0);
});

t.test('what was read is not told of a process that had ended by then, because its pid may be another’s', async (t) => {
  for (const endsAfter of [0, 1]) {
    let checks = 0;
    const pidfd = {
      get hasEnded(): boolean {
        checks += 1;
        return checks > endsAfter;
      },
    };
    const handle = { id: 'h_x', description: { id: 1, pidfd }, process: { pid: process.pid, ending: null } };
    const reader = new UsageReader({ pathIfThere: () => null } as never);
    const refused: unknown = await reader.read(handle as never).catch((error: unknown) => error);
    t.match(refused, { errno: 'ESRCH', facts: { handle: 'h_x' } });
    t.equal(checks, endsAfter + 1);
  }
});

t.test('a read that the kernel holds up delays no other answer, and takes one thread', async (t) => {
  const held: PromiseWithResolvers<string>[] = [];
  const io = new ProcessIo(() => {
    const next = Promise.withResolvers<string>();
    held.push(next);
    return next.promise;
  });
  const waiting = [io.read(1), io.read(2), io.read(3)];
  t.same(await Promise.all(waiting), [null, null, null]);
  t.equal(held.length, 1);
  t.equal(await io.read(4), null, 'at once');
  for (let at = 0; at < 3; at += 1) {
    await eventually(() => held.length === at + 1);
    held[at]!.resolve('late');
  }
  await eventually(() => held.length === 3);
  const later = io.read(5);
  await eventually(() => held.length === 4);
  held[3]!.resolve('in time');
  t.equal(await later, 'in time');
  const refused = io.read(6);
  held[4]!.reject(new Error('EACCES'));
  t.equal(await refused, null);
});

const cgroupsIn = (path: string): string[] => readdirSync(path).filter((name) => name.startsWith('waitd-'));

/** The mount point of cgroups version 2 on this machine. */
const TREE = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')));

function cgroupFor(t: Test): string | null {
  try {
    const path = mkdtempSync(join(TREE ?? '/nonexistent', 'waitd-test-'));
    t.teardown(() => eventually(() => cgroupsIn(path).length === 0).then(() => rmdirSync(path)));
    return path;
  } catch {
    return null;
  }
}

t.test('of a handle with a cgroup, the usage of all in it', async (t) => {
  const directory = cgroupFor(t);
  if (directory === null) {
    t.comment('skipped: no cgroup (v2) can be created here');
    return;
  }
  const daemon = await Daemon.start(t, { args: ['--cgroup', directory] });
  const one = `${program} 3 10 1 /dev/null 0 50`;
  // One in a session of its own, and one that has ended: its CPU time counts.
  const script = `${program} 0 0 0 /dev/null 0 100; setsid ${one} & exec ${one}`;
  const { id, process: first } = await daemon.spawn(['sh', '-c', script], {}, { cgroup: {} });
  await eventually(async () => (await usageOf(daemon, id)).threads === 6);
  await eventually(async () => {
    const { cpu } = await usageOf(daemon, id);
    return cpu.userUs + cpu.systemUs >= 200_000;
  });
  const usage = await usageOf(daemon, id);
  t.match(usage, { processes: 2, threads: 6 });
  await eventually(async () => (await usageOf(daemon, id)).descriptors === (countsDescriptors ? 20 : null));
  const { body: twin } = await daemon.post('/v1/handles', { dup: id });
  t.match(await usageOf(daemon, twin.id), { processes: 2 }, 'a dup shares it');
  const { body: opened } = await daemon.post('/v1/handles', { open: { pid: first.pid } });
  t.match(await usageOf(daemon, opened.id), { processes: 1, threads: 3 }, 'an open has none');
  await daemon.signal(id, 'SIGKILL');
  await daemon.waitid(id);
  t.match(await daemon.get(`/v1/handles/${id}/usage`), { status: 404 }, 'the process has ended, and others live on');
  const left = cgroupsIn(directory)[0]!;
  for (const pid of readFileSync(join(directory, left, 'cgroup.procs'), 'utf8')
    .split('\n')
    .filter(Boolean))
    process.kill(Number(pid), 'SIGKILL');
  await eventually(() => cgroupsIn(directory).length === 0);
  t.equal(await daemon.stop(), 0);
});

t.test('every file of a cgroup, and those below it', async (t) => {
  const directory = temporaryDirectory(t);
  const write = (name: string, text: string): void => writeFileSync(join(directory, name), text);
  t.same(
    await readCgroupUsage(directory),
    { cpu: null, rssKiB: null, readBytes: null, writeBytes: null, threads: 0, pids: [] },
    'one that has been removed',
  );
  write('cpu.stat', 'usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 0\n');
  write('memory.stat', 'anon 40960\nfile 999999\nfile_mapped 8192\nanon_thp 0\n');
  write(
    'io.stat',
    '8:16 rbytes=1459200 wbytes=314773504 rios=192\n8:0 rbytes=90430464 wbytes=299008000 rios=8950\n7:0\n',
  );
  write('cgroup.procs', '12\n13\n');
  write('cgroup.threads', '12\n13\n14\n');
  const below = mkdtempSync(join(directory, 'below-'));
  writeFileSync(join(below, 'cgroup.procs'), '20\n');
  writeFileSync(join(below, 'cgroup.threads'), '20\n21\n');
  const expected = {
    cpu: { userUs: 10, systemUs: 20 },
    rssKiB: 48,
    readBytes: 1_459_200 + 90_430_464,
    writeBytes: 314_773_504 + 299_008_000,
    threads: 5,
    pids: [12, 13, 20],
  };
  t.same(await readCgroupUsage(directory), expected);
  write('pids.current', '7\n');
  t.match(await readCgroupUsage(directory), { threads: 7 }, 'the controller counts those below too');
  write('io.stat', '');
  t.match(await readCgroupUsage(directory), { readBytes: 0, writeBytes: 0 });
  for (let count = 0; count < 1000; count += 1) mkdtempSync(join(below, 'deep-'));
  t.match(await readCgroupUsage(directory), { pids: null, threads: 7 }, 'too many to count');
});
