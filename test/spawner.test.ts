import t from 'tap';
import type { Client } from '../src/clients/client.ts';
import { Problem } from '../src/errors/problem.ts';
import { Admission } from '../src/handles/admission.ts';
import { DescriptorPressure } from '../src/handles/descriptor-pressure.ts';
import type { HandleTable } from '../src/handles/handle-table.ts';
import { Spawner, type SpawnerParts } from '../src/handles/spawner.ts';
import type { Change } from '../src/journal/change.ts';
import type { Journal } from '../src/journal/journal.ts';
import type { Event } from '../src/model/event.ts';
import type { Handle } from '../src/model/process.ts';
import type { Launched } from '../src/spawn/launch.ts';
import type { LaunchRequest } from '../src/spawn/launch-request.ts';

const PID = 4711;

/** A spawn's effects on other parts of the daemon, in the order of the steps that Spawner states. */
const steps = [
  'reserve a handle',
  'reserve output',
  'reserve a terminal',
  'reserve the name',
  'take from the rate limit',
  'make the cgroup',
  'announce a spawn',
  'make the pipes',
  'fork',
  'close the write ends',
  'reserve the pid',
  'follow the cgroup',
  'write the intent',
  'release',
  'track the output',
  'track the input',
  'track the terminal',
  'watch the process',
  'add the handle',
  'write the handle',
  'send opened',
  'release the reservation of a handle',
  'release the reservation of output',
  'release the reservation of the name',
  'release the reservation of a terminal',
  'attach to the reaper',
  'end the reservation',
  'notify the listeners',
] as const;
type Step = (typeof steps)[number];

const unprepared = ['discard the output', 'close the input', 'remove the cgroup'];
const unforked = ['end the spawn', ...unprepared];
const killed = ['kill', 'discard the pid', 'end the reservation', ...unprepared];
const withdrawn = ['kill', 'discard the pid', 'withdraw the intent', 'end the reservation', ...unprepared];

/** What undoes the steps before a failed one. The quotas are released after that. */
const undone: [failing: Step, undoing: readonly string[]][] = [
  ['reserve a handle', []],
  ['reserve output', []],
  ['reserve a terminal', []],
  ['reserve the name', []],
  ['take from the rate limit', []],
  ['make the cgroup', unprepared],
  ['make the pipes', unforked],
  ['fork', ['close the write ends', ...unforked]],
  ['follow the cgroup', killed],
  // A change that could not be written is still in memory, so it is withdrawn too.
  ['write the intent', withdrawn],
  ['release', withdrawn],
  ['track the output', withdrawn],
  ['track the input', withdrawn],
  ['track the terminal', withdrawn],
  ['watch the process', withdrawn],
  ['add the handle', withdrawn],
];

const quotasReleased = [
  'release the reservation of the name',
  'release the reservation of a terminal',
  'release the reservation of output',
  'release the reservation of a handle',
];

/** Parts that record their calls, and fail at one step. */
function fakes(failing: Step | null): { parts: SpawnerParts; done: string[]; client: Client; handles: Set<Handle> } {
  const done: string[] = [];
  const handles = new Set<Handle>();
  const step = (name: Step): void => {
    if (name === failing) throw new Problem('ENOMEM', name);
    done.push(name);
  };
  const reservation = (what: string): Disposable => {
    let isTaken = true;
    return {
      [Symbol.dispose]: () => {
        if (isTaken) done.push(`release the reservation of ${what}`);
        isTaken = false;
      },
    };
  };
  const names: Partial<Record<Change['write'], string>> = {
    handle: 'write the intent',
    withdrawn: 'withdraw the intent',
  };
  const journal = {
    head: 7,
    fault: null,
    takeNumber: () => 12,
    nextSeq: () => 8,
    now: () => 0,
    check: () => null,
    commit: (changes: readonly Change[]): boolean => {
      const name = changes.map(({ write }) => names[write]).find((each) => each !== undefined) ?? 'write the handle';
      if (name === failing) return false;
      done.push(name);
      return true;
    },
  } as unknown as Journal;
  const table = {
    makeId: () => 'h_1',
    reserve: () => {
      step('reserve a handle');
      return reservation('a handle');
    },
    countOf: () => 0,
    names: {
      reserve: () => {
        step('reserve the name');
        return reservation('the name');
      },
    },
    add: (handle: Handle) => {
      step('add the handle');
      handles.add(handle);
    },
  } as unknown as HandleTable;
  const launched: Launched = {
    pid: PID,
    pidfd: { inode: '90210' } as Launched['pidfd'],
    begin: async () => step('release'),
    undo: () => void done.push('kill'),
  };
  const parts = {
    journal,
    table: { add: () => step('watch the process') },
    handles: table,
    admission: new Admission(journal, table),
    pressure: new DescriptorPressure({ giveUp: () => false } as never),
    reaper: {
      beginSpawn: () => {
        step('announce a spawn');
        return { number: 1, done: () => void done.push('end the spawn') };
      },
      reserve: () => {
        step('reserve the pid');
        return () => void done.push('end the reservation');
      },
      discard: () => void done.push('discard the pid'),
      attach: () => step('attach to the reaper'),
    },
    feed: { push: (events: readonly Event[]) => void done.push(`send ${events.map(({ type }) => type).join()}`) },
    features: { inode: true, nonblocking: true },
    descriptors: 1024,
    outputs: {
      reserve: () => {
        step('reserve output');
        return reservation('output');
      },
      open: async () => {
        step('make the pipes');
        return { of: () => null, [Symbol.dispose]: () => void done.push('close the write ends') };
      },
      track: () => step('track the output'),
      discard: () => void done.push('discard the output'),
    },
    inputs: {
      track: () => step('track the input'),
      close: () => void done.push('close the input'),
    },
    terminals: {
      reserve: () => {
        step('reserve a terminal');
        return reservation('a terminal');
      },
      track: () => step('track the terminal'),
    },
    cgroups: {
      create: () => step('make the cgroup'),
      follow: () => step('follow the cgroup'),
      release: () => void done.push('remove the cgroup'),
      procsFile: () => '/sys/fs/cgroup/x/cgroup.procs',
    },
    forkServer: { abandon: () => {} },
    launch: async () => {
      step('fork');
      return launched;
    },
  } as unknown as SpawnerParts;
  const client = {
    name: 'uid:1',
    rights: { spawn: true },
    quotas: {},
    spawns: { take: () => step('take from the rate limit') },
  } as unknown as Client;
  return { parts, done, client, handles };
}

const request = {
  argv: ['true'],
  env: {},
  cwd: '/',
  stdin: 'null',
  stdout: 'null',
  stderr: 'null',
  tty: { rows: 24, cols: 80 },
  cgroup: { memoryMax: 1 },
} as unknown as LaunchRequest;
const options = { nonblocking: false, name: null, labels: {} };

t.test('a spawn takes its steps in the stated order', async (t) => {
  const { parts, done, client, handles } = fakes(null);
  const spawner = new Spawner(parts);
  spawner.onBegun((pid) => void done.push(pid === PID ? 'notify the listeners' : String(pid)));
  const handle = await spawner.spawn(client, request, options);
  t.strictSame(done, steps);
  t.strictSame([...handles], [handle]);
  t.match(handle, { id: 'h_1', seq: 7, client: 'uid:1' });
});

for (const [failing, undoing] of undone)
  t.test(`a spawn that fails at the step “${failing}” leaves nothing behind`, async (t) => {
    const { parts, done, client, handles } = fakes(failing);
    const spawner = new Spawner(parts);
    spawner.onBegun(() => t.fail('no program has begun'));
    const errno = failing === 'write the intent' ? 'ENOSPC' : 'ENOMEM';
    await t.rejects(spawner.spawn(client, request, options), { errno } as never);
    const before = steps.slice(0, steps.indexOf(failing));
    const taken = quotasReleased.slice(4 - Math.min(before.length, 4));
    t.strictSame(done, [...before, ...undoing, ...taken]);
    t.equal(handles.size, 0);
    // A stop of the daemon does not wait for a failed spawn.
    await spawner.drain(new Problem('ESHUTDOWN', 'stopping'));
  });

t.test('a spawn that arrives during a stop is refused before anything is created', async (t) => {
  const { parts, done, client } = fakes(null);
  const spawner = new Spawner(parts);
  await spawner.drain(new Problem('ESHUTDOWN', 'stopping'));
  await t.rejects(spawner.spawn(client, request, options), { errno: 'ESHUTDOWN' } as never);
  t.strictSame(done, []);
});

t.test('a spawn whose checks are still running when a stop begins creates nothing either', async (t) => {
  const { parts, done, client } = fakes(null);
  const spawner = new Spawner(parts);
  const spawning = spawner.spawn(client, request, options);
  parts.admission.close(new Problem('ESHUTDOWN', 'stopping'));
  await t.rejects(spawning, { errno: 'ESHUTDOWN' } as never);
  t.notOk(done.includes('make the cgroup'));
});
