import fc from 'fast-check';
import t from 'tap';
import { type Deadline, Deadlines } from '../src/deadlines/deadlines.ts';
import { BootTimer } from '../src/kernel/boot-timer.ts';
import { boottimeMs } from '../src/kernel/clock.ts';
import { Epoll, Wakeup } from '../src/kernel/epoll.ts';

/** Deadlines on a clock that the test moves; `armed` is the time of the alarm. */
class Scene {
  now = 0;
  armed: number | null = null;
  readonly deadlines = new Deadlines(
    {
      set: (at) => {
        this.armed = at;
      },
    },
    () => this.now,
  );

  /** Fires the alarm, once. */
  wake(): void {
    this.armed = null;
    this.deadlines.run();
  }

  wakeAll(): void {
    while (this.armed !== null && this.armed <= this.now) this.wake();
  }
}

t.test('each deadline fires once, in order of time, after any additions, moves and cancellations', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('add' as const), at: fc.nat(1000) }),
    fc.record({ do: fc.constant('move' as const), which: fc.nat(), at: fc.nat(1000) }),
    fc.record({ do: fc.constant('cancel' as const), which: fc.nat() }),
    fc.record({ do: fc.constant('pass' as const), ms: fc.nat(100) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const scene = new Scene();
      const waiting = new Map<Deadline, number>();
      const all: Deadline[] = [];
      const due: number[] = [];
      for (const each of steps) {
        const chosen = 'which' in each && all.length > 0 ? all[each.which % all.length]! : null;
        if (each.do === 'add') {
          const entry = scene.deadlines.add(each.at, () => {
            due.push(waiting.get(entry)!);
            waiting.delete(entry);
          });
          waiting.set(entry, each.at);
          all.push(entry);
        } else if (each.do === 'move' && chosen !== null) {
          if (waiting.has(chosen)) waiting.set(chosen, each.at);
          scene.deadlines.move(chosen, each.at);
        } else if (each.do === 'cancel' && chosen !== null) {
          waiting.delete(chosen);
          scene.deadlines.cancel(chosen);
        } else if (each.do === 'pass') {
          scene.now += each.ms;
          const expected = [...waiting.values()].filter((at) => at <= scene.now).sort((a, b) => a - b);
          due.length = 0;
          scene.wakeAll();
          if (due.join() !== expected.join()) return false;
        }
        const earliest = waiting.size === 0 ? null : Math.min(...waiting.values());
        if (scene.armed !== earliest || scene.deadlines.size !== waiting.size) return false;
      }
      return true;
    }),
  );
});

t.test('of thousands of due deadlines a batch runs at a time, and the alarm fires for the rest', async (t) => {
  const scene = new Scene();
  let count = 0;
  for (let n = 0; n < 1000; n += 1)
    scene.deadlines.add(n, () => {
      count += 1;
    });
  scene.now = 1000;
  scene.wake();
  t.ok(count < 1000);
  t.ok(scene.armed !== null && scene.armed < scene.now);
  scene.wakeAll();
  t.equal(count, 1000);
});

t.test('a deadline that throws is done, and delays none behind it', async (t) => {
  const scene = new Scene();
  let second = false;
  scene.deadlines.add(1, () => {
    throw new Error('thrown for the test');
  });
  scene.deadlines.add(2, () => {
    second = true;
  });
  scene.now = 2;
  t.throws(() => scene.wake(), /thrown for the test/);
  t.equal(scene.armed, 2);
  scene.wake();
  t.ok(second);
});

t.test('the alarm is a timer on CLOCK_BOOTTIME that wakes the event loop', async (t) => {
  using timer = new BootTimer();
  const epoll = new Epoll<Wakeup>();
  const deadlines = new Deadlines(timer, boottimeMs);
  epoll.add(timer, new Wakeup(() => setImmediate(() => deadlines.run())));
  epoll.start(() => {
    for (const { token } of epoll.drain().ready) token.ready();
  });
  t.teardown(() => epoll.stop());
  const begin = boottimeMs();
  const order: number[] = [];
  await new Promise<void>((resolve) => {
    deadlines.add(begin + 30, () => {
      order.push(3);
      resolve();
    });
    deadlines.add(begin - 1000, () => order.push(1));
    deadlines.add(begin + 10, () => order.push(2));
    deadlines.cancel(deadlines.add(begin + 5, () => order.push(0)));
  });
  t.same(order, [1, 2, 3]);
  t.ok(boottimeMs() >= begin + 30, 'never early');
});
