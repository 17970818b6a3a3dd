import t from 'tap';
import { Daemon } from './support/harness.ts';
import { head, tcp, type Wire } from './support/wire.ts';

const daemon = await Daemon.start(t);

/** Opens an event stream as EventSource does, and reopens it at its last event. */
async function stream(until: RegExp, query = '', lastId?: string): Promise<Wire> {
  const wire = tcp(daemon);
  const resume = lastId === undefined ? [] : [`last-event-id: ${lastId}`];
  wire.socket.write(head(daemon, `GET /v1/events${query}`, 'accept: text/event-stream', ...resume));
  await wire.until(until);
  wire.socket.destroy();
  return wire;
}

/** The id with which a reader would resume. */
const lastIdOf = ({ text }: Wire): string | undefined => [...text.matchAll(/^id: (\d+)$/gm)].at(-1)?.[1];

t.test('a stream that ends before its first event is resumed without loss', async (t) => {
  const quiet = await stream(/"hello"/);
  const { id } = await daemon.spawn(['true']);
  const resumed = await stream(/"exited"/, '', lastIdOf(quiet));
  t.match(resumed.text, new RegExp(`"opened","handle":"${id}"`));
  const { head: latest } = (await daemon.get('/v1/node')).body;
  t.equal(lastIdOf(await stream(/"hello"/, '', '0')) === undefined, false, 'its hello has the requested cursor');
  t.match((await stream(/"hello"/, `?since=${latest}`)).text, new RegExp(`id: ${latest}\\ndata: {"type":"hello"`));
});

t.test('so is a stream of one handle, which begins with that handle', async (t) => {
  const handle = await daemon.spawn(['true']);
  await daemon.waitid(handle.id);
  const begun = await stream(/"hello"/, `?handle=${handle.id}`);
  t.match(begun.text, new RegExp(`id: ${handle.seq}\\ndata: {"type":"hello"`));
  const all = await stream(/"subscribed"/, `?handle=${handle.id}`, String(handle.seq));
  t.match(all.text, /"opened"[\s\S]*"exited"/);
  const done = await stream(/"subscribed"/, `?handle=${handle.id}`, lastIdOf(all));
  t.notMatch(done.text, /"event"/, 'no event is sent twice');
});

t.test('the id of a gap is the cursor after it', async (t) => {
  const { head: latest } = (await daemon.get('/v1/node')).body;
  const reset = await stream(/"reset"/, '', String(latest + 100));
  t.match(
    reset.text,
    new RegExp(`id: ${latest}\\ndata: {"type":"gap","from":${latest + 1},"to":${latest + 100},"reset":true}`),
  );
  t.equal(lastIdOf(reset), String(latest));
  t.notMatch((await stream(/"hello"/, '', lastIdOf(reset))).text, /"gap"/, 'it is sent once');
});

t.teardown(() => daemon.stop());
