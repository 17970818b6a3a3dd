import t from 'tap';
import type { ProcStat } from '../src/kernel/proc.ts';
import { Process, type Stray } from '../src/model/process.ts';
import { Census } from '../src/settlement/census.ts';
import { mayBeLeft, membersOf, rootsOf, straysOf } from '../src/settlement/survivors.ts';

/** The pid of the process that has ended. All pids are beyond the largest possible one (2^22). */
const MAIN = 5_000_000;
const [A, B, C] = [MAIN + 1, MAIN + 2, MAIN + 3];

interface Member {
  parent: number;
  session: number;
  group?: number;
  state?: string;
  start?: number;
}

const census = (members: Record<number, Member>): Census =>
  new Census(
    new Map(
      Object.entries(members).map(([pid, { parent, session, group = session, state = 'S', start = Number(pid) }]) => {
        const stat: ProcStat = { state, parent, group, session, terminal: 0, threads: 1, flags: 0, startTicks: start };
        return [Number(pid), stat] as const;
      }),
    ),
  );

function ended(strays: Stray[] = []): Process {
  const facts = { id: 1, pid: MAIN, inode: null, startedAt: 0, argv: [], relation: 'child' as const };
  const process = new Process(facts);
  process.remains = { cgroup: false, strays };
  return process;
}

const found = (process: Process, of: Census): number[] => [...membersOf(rootsOf(process), of).keys()].sort();

t.test('members are those of the session and the group, with their descendants in any session', (t) => {
  const members = census({
    1: { parent: 0, session: 1 },
    [A]: { parent: 1, session: MAIN },
    [B]: { parent: A, session: B },
    [C]: { parent: 1, session: B, group: C },
  });
  t.same(found(ended(), members), [A, B, C]);
  t.same(straysOf(ended(), membersOf(rootsOf(ended()), members), members), [{ pid: B, startTicks: B }]);
  t.end();
});

t.test('a later process with the number of an ended one is no member', (t) => {
  const main = { parent: 1, session: MAIN };
  t.same(found(ended(), census({ [MAIN]: main, [A]: { parent: MAIN, session: MAIN } })), []);
  t.same(found(ended(), census({ [MAIN]: { ...main, state: 'Z' } })), [MAIN], 'but its own zombie is');
  const stray = { pid: B, startTicks: 7 };
  t.same(found(ended([stray]), census({ [B]: { parent: 1, session: B, start: 7 } })), [B]);
  t.same(found(ended([stray]), census({ [B]: { parent: 1, session: B, start: 8, state: 'Z' } })), []);
  t.same(found(ended([stray]), census({ [C]: { parent: 1, session: B } })), [C], 'its session lives on');
  t.end();
});

t.test('a session that began below the process is remembered once, also when its leader has ended', (t) => {
  const members = census({
    [A]: { parent: 1, session: MAIN },
    [B]: { parent: A, session: MAIN + 9 },
    [C]: { parent: B, session: MAIN + 9 },
  });
  const process = ended();
  t.same(straysOf(process, membersOf(rootsOf(process), members), members), [{ pid: MAIN + 9, startTicks: null }]);
  t.end();
});

t.test('descendants in a session from above the process are remembered one by one', (t) => {
  const members = census({ [A]: { parent: 1, session: 500, group: MAIN }, [B]: { parent: A, session: 500 } });
  const process = ended();
  t.same(straysOf(process, membersOf(rootsOf(process), members), members), [{ pid: B, startTicks: B }]);
  t.end();
});

t.test('the number of a live process is in use by that process alone', (t) => {
  t.notOk(mayBeLeft({ pid: MAIN, startTicks: null }), 'a free number');
  t.notOk(mayBeLeft({ pid: process.pid, startTicks: null }), 'a live process, while the one that was meant has ended');
  t.notOk(mayBeLeft({ pid: process.pid, startTicks: 1 }), 'another start');
  t.end();
});
