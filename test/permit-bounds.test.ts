import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Response, temporaryDirectory } from './support/harness.ts';
import { as, full, startWithPolicy } from './support/policies.ts';

const MAIN = join(import.meta.dirname, '../src/main.ts');
const isRoot = process.getuid!() === 0;

/** A command that starts a daemon with known limits. */
const prefix = ['prlimit', '--msgqueue=1000:2000', '--core=0:0', '--', 'sh', '-c', 'umask 027; exec "$@"', 'sh'];
const refused = { status: 403, body: { errno: 'EPERM' } };

t.test('a tenant may narrow its spawns, and widen only what the policy lists', async (t) => {
  const rule = { programs: ['/bin/sh'] };
  const daemon = await startWithPolicy(
    t,
    {
      plain: { ...full, spawn: rule },
      wide: {
        ...full,
        spawn: { ...rule, nice: { min: -5 }, limits: { msgqueue: 2000, core: 'unlimited' }, umask: '002' },
      },
      everything: full,
    },
    { prefix },
  );
  const spawn = async (name: string, more: object, script = 'true'): Promise<Response & { shown: string }> => {
    const body = { spawn: { argv: ['/bin/sh', '-c', script], stdout: 'capture', ...more } };
    const answer = await daemon.post('/v1/handles', body, as(name, { prefer: 'wait=20' }));
    const shown = answer.status === 201 ? await daemon.get(`/v1/handles/${answer.body.id}/stdout`, as(name)) : null;
    return { ...answer, shown: shown?.text.trim() ?? '' };
  };
  const own = getPriority();
  for (const name of ['plain', 'wide', 'everything']) {
    t.match(await spawn(name, { nice: own + 2 }, 'ps -o nice= -p $$'), { status: 201, shown: String(own + 2) });
    t.match(await spawn(name, { limits: { msgqueue: 500 } }), { status: 201 });
    t.match(await spawn(name, { limits: { msgqueue: { soft: 1000, hard: 2000 }, nofile: 64, core: 0 } }), {
      status: 201,
    });
    t.match(await spawn(name, { umask: '077' }, 'umask'), { status: 201, shown: '0077' });
    t.match(await spawn(name, { noNewPrivileges: true }, 'grep NoNewPrivs /proc/self/status'), { shown: /1$/ });
  }
  for (const more of [
    { nice: own - 1 },
    { nice: -20 },
    { limits: { msgqueue: 1001 } },
    { limits: { msgqueue: { soft: 1000, hard: 2001 } } },
    { limits: { core: 'unlimited' } },
    { limits: { core: { soft: 0, hard: 1 } } },
    { umask: '000' },
    { umask: '022' },
    { cgroup: {} },
    { cgroup: { memoryMax: 1_000_000 } },
  ])
    t.match(await spawn('plain', more), refused, JSON.stringify(more));
  t.match(await spawn('wide', { limits: { msgqueue: 2000 } }), { status: 201 }, 'within the listed bounds');
  t.match(await spawn('wide', { umask: '0022' }, 'umask'), { status: 201, shown: '0022' });
  for (const more of [
    { nice: -6 },
    { limits: { msgqueue: 2001 } },
    { umask: '0000' },
    { limits: { memlock: 'unlimited', msgqueue: 2001 } },
  ])
    t.match(await spawn('wide', more), refused, JSON.stringify(more));
  if (isRoot) {
    t.match(await spawn('wide', { nice: -5 }, 'ps -o nice= -p $$'), {
      shown: '-5',
    });
    t.match(await spawn('everything', { nice: -20 }), { status: 201 }, 'spawn: true allows all that the daemon can do');
  } else t.pass('a lower nice value', { skip: 'only root may lower it' });
});

t.test('waitd policy check accepts the bounds', async (t) => {
  const check = (spawn: object): { status: number | null; stderr: string } => {
    const file = join(temporaryDirectory(t), 'policy.yaml');
    writeFileSync(file, JSON.stringify({ clients: { ci: { spawn: { programs: [], ...spawn } } } }));
    return spawnSync(process.execPath, [MAIN, 'policy', 'check', file], { encoding: 'utf8' });
  };
  for (const right of [
    { nice: { min: 0 } },
    { limits: { nofile: 4096, core: 'unlimited' } },
    { umask: '002' },
    { cgroup: true },
    { cgroup: { memoryMax: 2 ** 30, pidsMax: 100, cpuPercent: 200 } },
  ])
    t.match(check(right), { status: 0 }, JSON.stringify(right));
  for (const [wrong, place] of [
    [{ nice: { min: -21 } }, 'clients.ci.spawn.nice.min: '],
    [{ nice: {} }, 'clients.ci.spawn.nice.min: '],
    [{ limits: { nofiles: 1 } }, 'nofiles'],
    [{ limits: { nofile: 'many' } }, 'clients.ci.spawn.limits.nofile: must be a whole number or "unlimited"'],
    [{ umask: '9' }, 'clients.ci.spawn.umask: must be three or four octal digits'],
    [{ umask: 2 }, 'clients.ci.spawn.umask: '],
    [{ cgroup: { memory: 1 } }, 'clients.ci.spawn.cgroup'],
  ] as const) {
    const { status, stderr } = check(wrong);
    t.equal(status, 1, JSON.stringify(wrong));
    t.ok(stderr.includes(place), `${place} in ${stderr}`);
  }
});
