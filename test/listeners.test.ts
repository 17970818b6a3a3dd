import t from 'tap';
import { Listeners } from '../src/model/listeners.ts';

t.test('every listener is called in the order of subscription, until its subscription ends', async (t) => {
  const listeners = new Listeners<[number]>();
  const calls: string[] = [];
  const first = listeners.on((n) => calls.push(`first ${n}`));
  listeners.on((n) => calls.push(`second ${n}`));
  listeners.emit(1);
  first();
  first();
  listeners.emit(2);
  t.same(calls, ['first 1', 'second 1', 'second 2']);
});

t.test('a function that subscribes twice has two subscriptions', async (t) => {
  const listeners = new Listeners();
  let calls = 0;
  const count = (): void => {
    calls += 1;
  };
  const end = listeners.on(count);
  listeners.on(count);
  listeners.emit();
  t.equal(calls, 2);
  end();
  listeners.emit();
  t.equal(calls, 3);
});

t.test('a listener may end its own subscription while it runs', async (t) => {
  const listeners = new Listeners();
  const calls: string[] = [];
  const once = listeners.on(() => {
    calls.push('once');
    once();
  });
  listeners.on(() => calls.push('always'));
  listeners.emit();
  listeners.emit();
  t.same(calls, ['once', 'always', 'always']);
});
