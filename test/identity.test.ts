import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Identity } from '../src/journal/identity.ts';
import { Daemon, temporaryDirectory } from './support/harness.ts';

t.test('a node.json that is damaged, or has no key, is refused in one sentence', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'state'), { mode: 0o700 });
  const path = join(directory, 'state', 'node.json');
  new Identity(join(directory, 'state'), null).settle(0, 0);
  const good = JSON.parse(readFileSync(path, 'utf8'));
  for (const text of [
    '',
    '\0'.repeat(256),
    '{',
    'null',
    '[]',
    '{"node":"n_1"}',
    JSON.stringify({ ...good, key: '' }),
    JSON.stringify({ ...good, key: good.key.slice(4) }),
    JSON.stringify({ ...good, key: '!'.repeat(43) }),
    JSON.stringify({ ...good, node: '' }),
    JSON.stringify({ ...good, reserved: -1 }),
    JSON.stringify({ ...good, reserved: 1e300 }),
  ]) {
    writeFileSync(path, text);
    t.throws(
      () => new Identity(join(directory, 'state'), null),
      /node\.json is damaged .*restore it, or remove it/,
      text,
    );
  }
  await t.rejects(Daemon.start(t, { directory }), /node\.json is damaged .*restore it, or remove it/);
  rmSync(path);
  mkdirSync(path);
  t.throws(() => new Identity(join(directory, 'state'), null), /node\.json cannot be read \(EISDIR\)/);
  rmSync(path, { recursive: true });
  const heir = await Daemon.start(t, { directory });
  t.not((await heir.get('/v1/node')).body.node, good.node, 'a new node id after the file was removed');
  t.equal(await heir.stop(), 0);
});

t.test('an empty first token is refused: no client is accepted without a token', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'state'), { mode: 0o700 });
  writeFileSync(join(directory, 'state', 'token'), '\n', { mode: 0o600 });
  await t.rejects(Daemon.start(t, { directory }), /token is damaged: restore it, or remove it/);
});
