import { spawn as nodeSpawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Daemon, eventually, stateOf } from './support/harness.ts';
import { buildTwin, Twin } from './support/twin.ts';

/** A step towards a state, taken on both sides. */
type Step =
  | { signal: NodeJS.Signals | number }
  /** Waits until /proc shows this state; `Z`: until the process has ended. */
  | { until: 'T' | 't' | 'S' | 'Z' }
  | { read: readonly Option[] };

type Option = keyof typeof bits;
const bits = { WNOHANG: 1, WSTOPPED: 2, WEXITED: 4, WCONTINUED: 8, WNOWAIT: 0x0100_0000 } as const;
const codes = ['', 'CLD_EXITED', 'CLD_KILLED', 'CLD_DUMPED', 'CLD_TRAPPED', 'CLD_STOPPED', 'CLD_CONTINUED'];

const sleeper = ['sleep', '1000'];
const stop: Step[] = [{ signal: 'SIGSTOP' }, { until: 'T' }];
const goOn: Step[] = [{ signal: 'SIGCONT' }, { until: 'S' }];
const kill = (signal: NodeJS.Signals | number): Step[] => [{ signal }, { until: 'Z' }];
const ended: Step[] = [{ until: 'Z' }];

const daemon = await Daemon.start(t);
const program = buildTwin(daemon.directory);
// Each side dumps core in its own directory: of two simultaneous dumps into one file, one is not written.
const [twinCwd, daemonCwd] = ['twin-cwd', 'daemon-cwd'].map((name) => join(daemon.directory, name)) as [string, string];
for (const directory of [twinCwd, daemonCwd]) mkdirSync(directory);

const states: Record<string, { argv: string[]; steps: Step[] }> = {
  running: { argv: sleeper, steps: [{ until: 'S' }] },
  'exited with 7': { argv: ['sh', '-c', 'exit 7'], steps: ended },
  'exited with 259': { argv: [program, 'act', 'exit=259'], steps: ended },
  'exited with -1': { argv: [program, 'act', 'exit=-1'], steps: ended },
  'killed by SIGKILL': { argv: sleeper, steps: kill('SIGKILL') },
  'killed by SIGTERM': { argv: sleeper, steps: kill('SIGTERM') },
  'killed by a real-time signal': { argv: sleeper, steps: kill(37) },
  'ended by SIGSEGV, no core': { argv: ['sh', '-c', 'ulimit -c 0; kill -SEGV $$'], steps: ended },
  'ended by SIGSEGV, with a core if allowed': {
    argv: ['sh', '-c', 'ulimit -c 1000; kill -SEGV $$'],
    steps: ended,
  },
  stopped: { argv: sleeper, steps: stop },
  'stopped by SIGTSTP': { argv: sleeper, steps: [{ signal: 'SIGSTOP' }, { until: 'T' }, { signal: 'SIGTSTP' }] },
  'stopped, read': { argv: sleeper, steps: [...stop, { read: ['WSTOPPED'] }] },
  'stopped, read with WNOWAIT': { argv: sleeper, steps: [...stop, { read: ['WSTOPPED', 'WNOWAIT'] }] },
  'stopped, read, and another stop signal': {
    argv: sleeper,
    steps: [...stop, { read: ['WSTOPPED'] }, { signal: 'SIGSTOP' }],
  },
  continued: { argv: sleeper, steps: [...stop, { read: ['WSTOPPED'] }, ...goOn] },
  'continued, read': { argv: sleeper, steps: [...stop, { read: ['WSTOPPED'] }, ...goOn, { read: ['WCONTINUED'] }] },
  'stopped and continued, both unread': { argv: sleeper, steps: [...stop, ...goOn] },
  'continued and stopped, both unread': { argv: sleeper, steps: [...stop, { read: ['WSTOPPED'] }, ...goOn, ...stop] },
  'stopped unread, then killed': { argv: sleeper, steps: [...stop, ...kill('SIGKILL')] },
  'continued unread, then killed': { argv: sleeper, steps: [...stop, ...goOn, ...kill('SIGKILL')] },
  'traced by its parent and stopped by a signal': {
    argv: [program, 'act', 'traced-stops'],
    steps: [{ until: 't' }],
  },
  'traced by its parent, stopped and read': {
    argv: [program, 'act', 'traced-stops'],
    steps: [{ until: 't' }, { read: ['WEXITED'] }],
  },
  'traced by its parent and stopped by its exec': {
    argv: [program, 'act', 'traced-executes'],
    steps: [{ until: 't' }],
  },
  'traced by its parent, stopped unread, then killed': {
    argv: [program, 'act', 'traced-stops'],
    steps: [{ until: 't' }, ...kill('SIGKILL')],
  },
  collected: { argv: ['sh', '-c', 'exit 7'], steps: [...ended, { read: ['WEXITED'] }] },
  'ended by a thread with 7 after its leader exited with 3': { argv: [program, 'act', 'leader-exits'], steps: ended },
  'executing a program from a thread other than its leader': {
    argv: [program, 'act', 'thread-executes'],
    steps: ended,
  },
};

const events: Option[][] = [
  ['WEXITED'],
  ['WSTOPPED'],
  ['WCONTINUED'],
  ['WEXITED', 'WSTOPPED', 'WCONTINUED'],
  ['WSTOPPED', 'WCONTINUED'],
];
const optionSets: Option[][] = [...events, ...events.map((set): Option[] => [...set, 'WNOWAIT']), [], ['WNOWAIT']];

const sum = (options: readonly Option[]): number => options.reduce((all, option) => all | bits[option], 0);

/** One target, which the kernel sees through the twin and through the daemon. */
interface Pair {
  kernel(options: readonly Option[]): Promise<string>;
  daemon(options: readonly Option[]): Promise<string>;
}

interface Held extends Pair {
  end(): Promise<void>;
}

/** Returns the daemon's answer in the twin's words. */
async function askDaemon(id: string, options: readonly Option[]): Promise<string> {
  const { status, body } = await daemon.waitid(id, { options, timeoutMs: 0 });
  if (status !== 200) return body.errno;
  if (body.siginfo === null) return body.timedOut ? 'blocks' : 'zero';
  const { code, status: value, uid } = body.siginfo;
  return `event ${codes.indexOf(code)} ${value} ${uid}`;
}

async function askKernel(twin: Twin, nonblocking: boolean, options: readonly Option[]): Promise<string> {
  const [word = '', code, status, , uid] = (await twin.ask('wait', nonblocking ? 'n' : 'b', sum(options))).split(' ');
  return word === 'event' ? `event ${code} ${status} ${uid}` : word;
}

async function bring(
  twin: Twin,
  { argv, steps }: { argv: string[]; steps: Step[] },
  nonblocking: boolean,
): Promise<Held> {
  const pid = Number(await twin.ask('child', ...argv));
  const { id, process: own } = await daemon.spawn(argv, { nonblocking }, { cwd: daemonCwd });
  for (const step of steps)
    if ('signal' in step) for (const target of [pid, own.pid]) process.kill(target, step.signal);
    else if ('until' in step) {
      if (step.until === 'Z') {
        // /proc does not tell: a leader whose threads outlive it reads Z there, and has not ended.
        await eventually(async () => (await twin.ask('wait', 'n', bits.WEXITED | bits.WNOWAIT)).startsWith('event'));
        await daemon.post('/v1/poll', { handles: [id] });
      } else for (const target of [pid, own.pid]) await eventually(() => stateOf(target) === step.until);
    } else {
      await twin.ask('wait', 'n', sum(step.read));
      await daemon.waitid(id, { options: step.read });
    }
  return {
    kernel: (options) => askKernel(twin, nonblocking, options),
    daemon: (options) => askDaemon(id, options),
    end: async () => {
      if (stateOf(pid) !== null) {
        process.kill(pid, 'SIGKILL');
        while ((await twin.ask('wait', 'n', bits.WEXITED)) === 'EAGAIN');
      }
      await daemon.request('DELETE', `/v1/handles/${id}?signal=9`);
    },
  };
}

/** @returns whether the kernel's side has consumed an event */
async function compare(t: Test, pair: Pair, nonblocking: boolean, options: Option[]): Promise<boolean> {
  let taken = false;
  const name = `${nonblocking ? 'nonblocking' : 'blocking'}, ${options.join('|') || 'no options'}`;
  for (const time of ['', ', once more']) {
    const kernel = await pair.kernel(options);
    t.equal(await pair.daemon(options), kernel, `${name}${time}: ${kernel}`);
    taken ||= kernel.startsWith('event') && !options.includes('WNOWAIT');
  }
  return taken;
}

for (const [name, state] of Object.entries(states))
  t.test(`a child that is ${name}`, async (t) => {
    const twin = new Twin(program, twinCwd);
    for (const nonblocking of [false, true]) {
      let pair: Held | null = null;
      for (const options of optionSets)
        for (const extra of [[], ['WNOHANG']] as Option[][]) {
          pair ??= await bring(twin, state, nonblocking);
          // Only a consumed event changes the state.
          if (!(await compare(t, pair, nonblocking, [...options, ...extra]))) continue;
          await pair.end();
          pair = null;
        }
      await pair?.end();
    }
    twin.end();
  });

t.test(
  'a foreign process that is alive, a zombie or reaped, or the daemon itself, has no status to collect',
  async (t) => {
    const twin = new Twin(program, twinCwd);
    const parent = nodeSpawn('sh', ['-c', 'sleep 1000 & echo $!; kill -STOP $$; wait']);
    const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)));
    await eventually(() => stateOf(parent.pid!) === 'T');
    const walk = async (kernelPid: number, daemonPid: number): Promise<() => Promise<void>> => {
      t.equal(await twin.ask('hold', kernelPid), 'held');
      const ids: string[] = [];
      for (const nonblocking of [false, true])
        ids.push((await daemon.post('/v1/handles', { open: { pid: daemonPid }, nonblocking })).body.id);
      return async () => {
        for (const options of optionSets)
          for (const extra of [[], ['WNOHANG']] as Option[][])
            for (const nonblocking of [false, true])
              await compare(
                t,
                {
                  kernel: (all) => askKernel(twin, nonblocking, all),
                  daemon: (all) => askDaemon(ids[Number(nonblocking)]!, all),
                },
                nonblocking,
                [...options, ...extra],
              );
      };
    };
    const ask = await walk(pid, pid);
    await ask();
    process.kill(pid, 'SIGKILL');
    await eventually(() => stateOf(pid) === 'Z');
    await ask();
    parent.kill('SIGCONT');
    await eventually(() => stateOf(pid) === null);
    await ask();
    await (await walk(0, daemon.pid))();
    twin.end();
  },
);

t.test('an unknown option is EINVAL', async (t) => {
  const twin = new Twin(program, twinCwd);
  await twin.ask('child', ...sleeper);
  t.equal(await twin.ask('wait', 'b', 0x10_0000 | bits.WEXITED), 'EINVAL');
  const { id } = await daemon.spawn(sleeper);
  t.match((await daemon.waitid(id, { options: ['WEXITED', 'WNONE'] })).body, { status: 400, errno: 'EINVAL' });
  await daemon.request('DELETE', `/v1/handles/${id}?signal=9`);
  twin.end();
});

t.test('no zombies are left behind', async (t) => {
  await eventually(() => daemon.zombies.length === 0);
  t.equal(await daemon.stop(), 0);
});
