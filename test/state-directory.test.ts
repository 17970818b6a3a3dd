import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t from 'tap';
import {
  asNobody,
  closedToOthers,
  homeOf,
  isRoot,
  MAIN,
  NOBODY,
  oneSentence,
  treeOf,
  waitd,
} from './support/command.ts';
import { temporaryDirectory } from './support/harness.ts';

t.test(
  'a state directory that is not writable',
  { skip: isRoot ? closedToOthers : 'only root changes the owner of a directory' },
  async (t) => {
    const d = temporaryDirectory(t);
    chmodSync(d, 0o755);
    mkdirSync(join(d, 'other'), { mode: 0o755 });
    const own = homeOf(t);
    mkdirSync(join(own, 'state'));
    chownSync(join(own, 'state'), NOBODY, NOBODY);
    writeFileSync(join(own, 'state', 'token'), 'x'.repeat(43), { mode: 0o600 });
    const listen = ['--listen', `unix:${own}/s`];
    const before = [treeOf(d), treeOf(own)];
    for (const [directory, ...check] of [
      [`${d}/other`],
      [`${d}/new/er`],
      [`${d}/other`, '--check'],
      [`${own}/state`],
    ]) {
      const ended = waitd(['serve', '--state-dir', directory!, ...listen, ...check], { prefix: asNobody });
      t.match(ended, { status: 1, stderr: oneSentence });
      t.match(ended.stderr, /uid 65534 may not write to the state directory .*: give it to that user/);
      t.same([treeOf(d), treeOf(own)], before, 'nothing is left behind');
    }
  },
);

t.test(
  'a state directory on a full or a read-only file system',
  { skip: isRoot ? false : 'only root can mount' },
  async (t) => {
    const d = temporaryDirectory(t);
    const script = `
    mkdir "$1/full" "$1/ro" && mount -t tmpfs -o size=64k none "$1/full" && mount -t tmpfs -o ro none "$1/ro" || exit 99
    head -c 1000000 /dev/zero > "$1/full/filler" 2>/dev/null
    shift; for kind in full ro; do for check in "" --check; do
      "$@" --state-dir "$D/$kind/state" --listen "unix:$D/s" $check; echo "$? $(ls -A "$D/$kind")"
    done; done`;
    const command = ['-c', script, 'sh', d, process.execPath, MAIN, 'serve'];
    const { stdout, stderr } = spawnSync('unshare', ['-m', 'sh', ...command], {
      env: { ...process.env, D: d, NODE_NO_WARNINGS: '1', NODE_OPTIONS: '' },
      encoding: 'utf8',
      timeout: 60_000,
    });
    t.same(stdout.split('\n'), ['1 filler', '1 filler', '1 ', '1 ', ''], stderr);
    const [full, fullChecked, ro, roChecked] = stderr.split('\n');
    t.match([full, fullChecked], [/free space on it|fix that/, /free space on it|fix that/]);
    t.match([ro, roChecked], [/may not write.*read-only file system/, /may not write.*read-only file system/]);
    t.notOk(existsSync(join(d, 's')));
  },
);

t.test('a journal that this version cannot read is refused before any change', async (t) => {
  const d = temporaryDirectory(t);
  const args = ['serve', '--state-dir', d, '--listen', `unix:${d}/s`];
  new DatabaseSync(join(d, 'journal.sqlite')).exec('PRAGMA user_version = 99; CREATE TABLE t (a)');
  t.match(waitd(args), { status: 1, stderr: /version 99/ });
  t.same(treeOf(d), ['journal.sqlite']);
  rmSync(join(d, 'journal.sqlite'));
  writeFileSync(join(d, 'node.json'), '{}');
  t.match(waitd([...args, '--check']), { status: 1, stderr: /node.json is damaged .*: restore it/ });
  t.same(treeOf(d), ['node.json']);
});
