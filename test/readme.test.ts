import t from 'tap';
import { isAsShown, runBlocks } from './support/document-shell.ts';
import { blocksOf, document } from './support/documents.ts';
import { Daemon, temporaryDirectory } from './support/harness.ts';

const readme = document('README.md');

t.test('the job in the README prints what the README shows', async (t) => {
  const daemon = await Daemon.start(t);
  const blocks = blocksOf(readme);
  const instead = { '/run/waitd/waitd.sock': daemon.socket };
  const [printed = ''] = runBlocks(t, blocks, { directory: temporaryDirectory(t), instead });
  const [job, output, , collected, again, events] = printed.split('\n');
  t.match(JSON.parse(job!), { state: 'exited', outcome: { reason: 'exited', exitCode: 7 } });
  t.equal(output, 'building');
  t.match(JSON.parse(collected!), { outcome: { reason: 'exited', exitCode: 7 } });
  t.match(JSON.parse(again!), { errno: 'ECHILD' });
  t.match(JSON.parse(events!), {
    events: [{ event: 'exited', outcome: { reason: 'exited', exitCode: 7 } }],
    gap: null,
  });
  const shown = blocks.find(({ output }) => output !== null)!.output!;
  t.ok(isAsShown(printed, shown), printed);
  t.equal(await daemon.stop(), 0);
});

t.test('the README has fewer than 200 lines', async (t) => {
  t.ok(readme.text.split('\n').length < 200);
});
