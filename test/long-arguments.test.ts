import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { shownArgv } from '../src/model/shown-argv.ts';
import { Daemon, eventually } from './support/harness.ts';
import { head, tcp } from './support/wire.ts';

t.test('a view shows the first 4096 bytes of arguments, and says whether more follow', async (t) => {
  const bytes = (argv: readonly string[]): number => argv.reduce((sum, each) => sum + Buffer.byteLength(each) + 1, 0);
  for (const argv of [['true'], ['a', 'x'.repeat(4093)], new Array(4096).fill(''), ['\u00e9'.repeat(2047)]])
    t.same(shownArgv(argv), { argv });
  for (const argv of [
    ['a', 'x'.repeat(4094)],
    new Array(5000).fill(''),
    ['\u00e9'.repeat(3000)],
    ['a', '\u{1f600}'.repeat(2000)],
    ['\u20ac'.repeat(1366), 'more'],
  ]) {
    const shown = shownArgv(argv);
    t.ok(shown.argvTruncated && bytes(shown.argv) <= 4097 && bytes(shown.argv) > 4090);
    t.ok(argv.join('\0').startsWith(shown.argv.join('\0')), 'it consists of whole characters');
  }
});

t.test('views and events of a process with megabytes of arguments stay small', async (t) => {
  const daemon = await Daemon.start(t);
  const long = new Array<string>(15).fill('x'.repeat(100_000));
  const handle = await daemon.spawn(['sh', '-c', 'exit 3', ...long]);
  t.match(handle.process, { argv: ['sh', '-c', 'exit 3', /^x{4000,}$/], argvTruncated: true });
  t.match((await daemon.waitid(handle.id)).body, { outcome: { exitCode: 3 } });
  for (let count = 0; count < 20; count += 1) await daemon.post('/v1/handles', { dup: handle.id });
  for (const path of ['/v1/handles?limit=1000', '/v1/events?limit=1000']) {
    const { status, text } = await daemon.get(path);
    t.equal(status, 200);
    // Of each handle at most three events.
    t.ok(text.length < 3 * 21 * 8192, `${path}: ${text.length} bytes`);
  }
  const state = join(daemon.directory, 'state');
  const kept = readdirSync(state).reduce((sum, name) => sum + statSync(join(state, name)).size, 0);
  t.ok(kept < 8 * 2 ** 20, `${kept} bytes of it are stored`);
  const short = await daemon.spawn(['true']);
  t.notOk('argvTruncated' in short.process);
  const { body } = await daemon.get('/openapi.json');
  t.ok(body.components.schemas.Process.properties.argvTruncated.description);
  t.equal(await daemon.stop(), 0);
});

t.test('a page ends after 4 MiB of events or handles, and the next page continues there', async (t) => {
  const daemon = await Daemon.start(t);
  const name = `\u0001`.repeat(4000); // a character that JSON encodes in six
  const first = await daemon.spawn(['sh', '-c', 'exit 0', name]);
  for (let count = 0; count < 400; count += 1) await daemon.post('/v1/handles', { dup: first.id });
  const seqs = [];
  let pages = 0;
  for (let since = 0; ; pages += 1) {
    const { text, body } = await daemon.get(`/v1/events?since=${since}&limit=1000`);
    t.ok(text.length < 6 * 2 ** 20);
    if (body.events.length === 0) break;
    seqs.push(...body.events.map(({ seq }: { seq: number }) => seq));
    since = body.next;
  }
  t.ok(pages > 1);
  t.equal(new Set(seqs).size, seqs.length);
  t.ok(seqs.length >= 401, 'no event is left out');
  const wire = tcp(daemon);
  wire.socket.write(head(daemon, 'GET /v1/events?since=0', 'accept: text/event-stream'));
  await eventually(() => wire.text.split('"type":"event"').length > seqs.length);
  wire.socket.destroy();
  t.equal(await daemon.stop(), 0);
});
