import t from 'tap';
import { Daemon } from './support/harness.ts';

const daemon = await Daemon.start(t);
// biome-ignore lint/suspicious/noExplicitAny: views and events
type View = any;

/** What a client knows of a handle: what the list showed, or what the events say since. */
interface Known {
  state: string;
  outcome: unknown;
  /** The cursor that it is up to date with. */
  seq: number;
}

const kept = ({ state, outcome }: Known): Pick<Known, 'state' | 'outcome'> => ({ state, outcome });
const STATES: Record<string, string> = {
  opened: 'running',
  stopped: 'stopped',
  continued: 'running',
  exited: 'exited',
};

/**
 * Lists all handles in small pages.
 * @param between is called between the first page and the second, if there are two
 * @returns the handles, with the `head` of the first page
 */
async function list(between?: () => Promise<unknown>): Promise<{ handles: Map<string, Known>; head: number }> {
  const handles = new Map<string, Known>();
  let first: number | null = null;
  for (let cursor: string | null = ''; cursor !== null; ) {
    const { body }: { body: View } = await daemon.get(`/v1/handles?limit=7${cursor}`);
    if (first === null && body.next !== null) await between?.();
    first ??= body.head as number;
    for (const { id, state, outcome } of body.handles) handles.set(id, { state, outcome, seq: body.head });
    cursor = body.next === null ? null : `&cursor=${body.next}`;
  }
  return { handles, head: first! };
}

/**
 * Applies an event to what a client knows. An event that the page of its handle already showed is skipped.
 * @throws {Error} if the event is no change of what is known, so that it was seen twice or another one was missed
 */
function apply(handles: Map<string, Known>, { seq, event, handle, outcome }: View): void {
  const known = handles.get(handle);
  if (known !== undefined && seq <= known.seq) return;
  const fail = (): never => {
    throw new Error(`${event} at ${seq} after ${JSON.stringify(known)}`);
  };
  if (event === 'opened') {
    if (known !== undefined) fail();
    handles.set(handle, { state: 'running', outcome: null, seq });
    return;
  }
  // A handle that was closed before its page was read is in no page.
  if (known === undefined) return;
  if (event === 'closed') {
    handles.delete(handle);
    return;
  }
  if (event === 'settled') return; // views do not show it
  const state = STATES[event];
  if (state === undefined || state === known.state) fail();
  if (known.state === 'exited' || (event === 'continued' && known.state !== 'stopped')) fail();
  Object.assign(known, { state, seq, outcome: event === 'exited' ? outcome : null });
}

/** Starts, stops, continues, ends and closes processes until it is told to end. */
async function churn(isOver: () => boolean): Promise<void> {
  for (let round = 0; !isOver(); round += 1) {
    const { id } = await daemon.spawn(['sleep', '1000']);
    if (round % 2 === 0) {
      await daemon.signal(id, 'SIGSTOP');
      await daemon.waitid(id, { options: ['WSTOPPED'] });
      await daemon.signal(id, 'SIGCONT');
    }
    await daemon.signal(id, 'SIGKILL');
    await daemon.waitid(id);
    if (round % 5 !== 0) await daemon.request('DELETE', `/v1/handles/${id}`);
  }
}

t.test('a client that lists and then follows misses nothing and sees nothing twice, under load', async (t) => {
  let isOver = false;
  const load = Promise.all(Array.from({ length: 8 }, () => churn(() => isOver)));
  const oldest = await daemon.spawn(['sleep', '1000']); // which is on the last page
  for (let times = 0; times < 7; times += 1) await daemon.spawn(['sleep', '1000']);
  const stop = async (): Promise<void> => {
    await daemon.signal(oldest.id, 'SIGSTOP');
    await daemon.waitid(oldest.id, { options: ['WSTOPPED'] });
    await daemon.signal(oldest.id, 'SIGCONT');
    await daemon.waitid(oldest.id, { options: ['WCONTINUED'] });
  };
  const clients: { handles: Map<string, Known>; head: number; socket: ReturnType<Daemon['ws']> }[] = [];
  let shown = 0;
  for (let times = 0; times < 25; times += 1) {
    const { handles, head } = await list(stop);
    shown += handles.size;
    clients.push({ handles, head, socket: daemon.ws(`?since=${head}`) });
  }
  isOver = true;
  await load;
  const { head } = (await daemon.get('/v1/node')).body;
  const end = await list();
  t.equal(end.head, head);
  const wanted = [...end.handles].map(([id, known]) => [id, kept(known)]).sort();
  t.ok(shown > 100, `${shown} handles were listed`);
  let duringList = 0;
  for (const { handles, socket, head: since } of clients) {
    await socket.until(() => (socket.frames.at(-1)?.seq ?? 0) >= head);
    duringList += socket.events.filter(({ seq, handle }) => seq <= (handles.get(handle)?.seq ?? 0)).length;
    for (const event of socket.events) apply(handles, event);
    t.equal(socket.frames[0].head >= since, true);
    t.same([...handles].map(([id, known]) => [id, kept(known)]).sort(), wanted);
    socket.close();
  }
  t.ok(duringList >= 50, `${duringList} events came between the pages of a list`);
});

t.test('the head of a page is the newest event that the page shows', async (t) => {
  const { id } = await daemon.spawn(['true']);
  await daemon.post('/v1/poll', { handles: [id], for: 'settled' });
  const { body } = await daemon.get('/v1/handles?limit=1');
  t.match(body, { handles: [{ id, state: 'exited' }], next: String, head: Number });
  t.same((await daemon.get(`/v1/events?since=${body.head}`)).body, { events: [], gap: null, next: body.head });
  t.equal((await daemon.get(`/v1/events?since=${body.head - 1}`)).body.events[0].event, 'settled');
  t.match((await daemon.get('/v1/handles?label=no=such')).body, { handles: [], next: null, head: body.head });
});

t.teardown(() => daemon.stop());
