import t from 'tap';
import type { askWaitid, WaitEvent } from '../src/kernel/waitid.ts';
import { P_ALL, P_PID, WEXITED, WNOHANG, WNOWAIT } from '../src/kernel/waitid.ts';
import { Process } from '../src/model/process.ts';
import { HandlelessChildren } from '../src/processes/handleless-children.ts';
import { UnheldStops } from '../src/processes/unheld-stops.ts';

/** Pids beyond the largest possible one (2^22), so that /proc has no entries for them. */
const [FIRST, SECOND, THIRD] = [5_000_001, 5_000_002, 5_000_003];

const event = (pid: number, code: WaitEvent['siginfo']['code']): WaitEvent => ({
  siginfo: { signo: 'SIGCHLD', code, pid, uid: 0, status: 0 },
  rusage: {} as WaitEvent['rusage'],
});
const stopped = (pid: number): WaitEvent => event(pid, 'CLD_STOPPED');

/** Simulates the children that waitid(2) reports: always the first zombie, until that is reaped. */
function kernel() {
  const zombies: number[] = [];
  /** A stop of a traced child is reported even without WSTOPPED, and hides the zombies until it is consumed. */
  const traps: number[] = [];
  const handles = new Map<number, Process>();
  const stops = new UnheldStops();
  const reaped: number[] = [];
  const recorded: number[] = [];
  const unwritten = new Set<number>();
  const ask: typeof askWaitid = (idtype, id, options) => {
    if ((options & WEXITED) === 0 || (options & WNOHANG) === 0) throw new Error(`waitid with options ${options}`);
    if (idtype === P_ALL) {
      if ((options & WNOWAIT) === 0) throw new Error('an exit was collected before it was identified');
      if (traps[0] !== undefined) return event(traps[0], 'CLD_TRAPPED');
      return zombies[0] === undefined ? 'ECHILD' : event(zombies[0], 'CLD_EXITED');
    }
    if (idtype !== P_PID || !zombies.includes(id)) return 'ECHILD';
    zombies.splice(zombies.indexOf(id), 1);
    reaped.push(id);
    return event(id, 'CLD_EXITED');
  };
  const children = new HandlelessChildren({
    table: { get: (pid: number) => handles.get(pid), stops, epoll: null as never },
    recordExit: ({ pid }) => {
      if (unwritten.has(pid)) return false;
      recorded.push(pid);
      zombies.splice(zombies.indexOf(pid), 1);
      handles.delete(pid);
      return true;
    },
    drainStops: () => void traps.splice(0),
    ask,
  });
  const hold = (pid: number): void => {
    const facts = { id: pid, pid, inode: null, startedAt: 0, argv: [], relation: 'child' as const };
    handles.set(pid, new Process(facts));
  };
  return { children, zombies, traps, stops, reaped, recorded, unwritten, hold };
}

t.test('an orphan is reaped and counted, and its stop is dropped', (t) => {
  const { children, zombies, stops, reaped } = kernel();
  children.keepStop(FIRST, stopped(FIRST));
  zombies.push(FIRST, SECOND);
  children.reap();
  t.same(reaped, [FIRST, SECOND]);
  t.equal(children.orphans, 2);
  t.same(stops.all, []);
  t.end();
});

t.test('listeners are notified before an orphan is reaped, and after', (t) => {
  const { children, zombies, reaped } = kernel();
  const heard: string[] = [];
  for (const name of ['one', 'another'])
    children.onOrphan((pid, after) => {
      heard.push(`${name} ${pid} ${reaped}`);
      after.defer(() => heard.push(`${name} after ${reaped}`));
    });
  zombies.push(FIRST);
  children.reap();
  t.same(heard, [`one ${FIRST} `, `another ${FIRST} `, `another after ${FIRST}`, `one after ${FIRST}`]);
  t.end();
});

t.test('the exit of a child with a handle is recorded; an exit that is not on disk yet hides later ones', (t) => {
  const { children, zombies, reaped, recorded, unwritten, hold } = kernel();
  for (const pid of [FIRST, SECOND]) hold(pid);
  unwritten.add(SECOND);
  zombies.push(FIRST, SECOND, THIRD);
  children.reap();
  t.same([recorded, reaped, zombies], [[FIRST], [], [SECOND, THIRD]]);
  unwritten.clear();
  children.reap();
  t.same([recorded, reaped, children.orphans], [[FIRST, SECOND], [THIRD], 1]);
  t.end();
});

t.test('a trap of a traced child is consumed, so that it hides no zombie', (t) => {
  const { children, zombies, traps, reaped } = kernel();
  traps.push(FIRST);
  zombies.push(SECOND);
  children.reap();
  t.same(reaped, [SECOND]);
  t.end();
});

t.test('while a spawn has no pid yet, a child that ended after the spawn began is no orphan', (t) => {
  const { children, zombies, reaped } = kernel();
  const spawn = children.beginSpawn();
  zombies.push(FIRST);
  children.reap();
  t.same(reaped, [], 'it may be the child of the pending spawn');
  const later = children.beginSpawn();
  spawn.done();
  t.same(reaped, [FIRST], 'it is not, and cannot belong to a spawn that began later');
  later.done();
  t.equal(children.orphans, 1);
  t.end();
});

t.test('the exit of a spawned child that ends at once waits for its handle, and is then recorded', (t) => {
  const { children, zombies, reaped, recorded, hold } = kernel();
  const spawn = children.beginSpawn();
  zombies.push(FIRST);
  children.reap();
  const release = children.reserve(FIRST, spawn);
  t.ok(children.isReserved(FIRST));
  zombies.push(SECOND);
  children.reap();
  t.same([reaped, recorded], [[], []], 'a reserved child hides an orphan behind it');
  hold(FIRST);
  release();
  t.notOk(children.isReserved(FIRST));
  t.same([recorded, reaped, children.orphans], [[FIRST], [SECOND], 1]);
  t.end();
});

t.test('the latest stop or continue of a spawned child is stored until it has a handle', (t) => {
  const { children, stops } = kernel();
  const spawn = children.beginSpawn();
  children.keepStop(FIRST, stopped(FIRST));
  const release = children.reserve(FIRST, spawn);
  t.match(children.stopOf(FIRST), stopped(FIRST), 'also one from before its pid was known');
  children.keepStop(FIRST, event(FIRST, 'CLD_CONTINUED'));
  t.match(children.stopOf(FIRST), event(FIRST, 'CLD_CONTINUED'));
  t.ok(children.keepsStopOf(FIRST));
  release();
  t.equal(children.stopOf(FIRST), null);
  const next = children.beginSpawn();
  children.reserve(SECOND, next);
  t.equal(children.stopOf(SECOND), null);
  t.same(
    stops.all.map(({ siginfo: { pid } }) => pid),
    [FIRST],
    'the stop of an unknown child is stored for its first handle',
  );
  t.end();
});

t.test('a stop that was seen before a spawn began belongs to an earlier process with the same pid', (t) => {
  const { children } = kernel();
  const earlier = children.beginSpawn();
  children.keepStop(FIRST, stopped(FIRST));
  const spawn = children.beginSpawn();
  children.reserve(FIRST, spawn);
  t.equal(children.stopOf(FIRST), null);
  earlier.done();
  t.end();
});

t.test('a discarded child is reaped when it has ended, and does not count as an orphan', (t) => {
  const { children, zombies, reaped } = kernel();
  children.onOrphan(() => t.fail('it is not told of'));
  const release = children.reserve(FIRST, children.beginSpawn());
  zombies.push(FIRST);
  children.reap();
  t.same(reaped, []);
  children.discard(FIRST);
  t.notOk(children.isReserved(FIRST));
  release();
  t.same(reaped, [FIRST]);
  t.equal(children.orphans, 0);
  const { children: others, zombies: theirs, reaped: taken } = kernel();
  const undo = others.reserve(FIRST, others.beginSpawn());
  others.discard(FIRST);
  undo();
  t.same(taken, [], 'it has not ended yet');
  theirs.push(FIRST);
  others.reap();
  t.same([taken, others.orphans], [[FIRST], 0]);
  theirs.push(FIRST);
  others.reap();
  t.equal(others.orphans, 1, 'the next process with that pid is an orphan again');
  t.end();
});

t.test('releasing a reservation does not affect a later child with the same pid', (t) => {
  const { children, zombies, reaped } = kernel();
  const first = children.reserve(FIRST, children.beginSpawn());
  children.discard(FIRST);
  const second = children.reserve(FIRST, children.beginSpawn());
  first();
  zombies.push(FIRST);
  children.reap();
  t.same(reaped, []);
  second();
  t.same(reaped, [FIRST]);
  t.end();
});
