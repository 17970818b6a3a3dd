import t from 'tap';
import { next, type ServiceEvent, type State } from '../src/lifecycle/service-states.ts';

const states: State[] = ['serving', 'rehearsing', 'upgrading', 'failing', 'stopping'];

/** Applies events, starting at `serving`, and returns the last state. */
function after(...events: ServiceEvent[]): State | 'exit' {
  let state: State = 'serving';
  for (const event of events) {
    const to = next(state, event);
    if (to === 'exit') return 'exit';
    state = to ?? state;
  }
  return state;
}

t.test('a stop is final, and a second one ends the process', (t) => {
  for (const state of states) t.equal(next(state, 'stop'), state === 'stopping' ? 'exit' : 'stopping', state);
  for (const event of ['upgrade', 'refused', 'accepted', 'main ended'] as const)
    t.equal(after('stop', event), 'stopping', event);
  t.equal(after('stop', 'fault'), 'exit');
  t.end();
});

t.test('one upgrade at a time, and only after its rehearsal', (t) => {
  t.equal(after('upgrade'), 'rehearsing');
  t.equal(after('upgrade', 'upgrade'), 'rehearsing');
  t.equal(after('upgrade', 'accepted'), 'upgrading');
  t.equal(after('upgrade', 'accepted', 'upgrade'), 'upgrading');
  t.equal(after('upgrade', 'refused'), 'serving');
  t.equal(after('upgrade', 'refused', 'upgrade'), 'rehearsing');
  t.end();
});

t.test('the result of a rehearsal counts only if nothing else has happened', (t) => {
  for (const event of ['refused', 'accepted'] as const) {
    t.equal(after('upgrade', 'stop', event), 'stopping');
    t.equal(after('upgrade', 'fault', event), 'failing');
    t.equal(after(event), 'serving');
  }
  t.end();
});

t.test('after a fault a new image takes over, from every state but a stop', (t) => {
  for (const state of states) t.equal(next(state, 'fault'), state === 'stopping' ? 'exit' : 'failing', state);
  t.equal(after('fault', 'upgrade'), 'failing');
  t.end();
});
