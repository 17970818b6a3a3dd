import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Daemon, eventually, temporaryDirectory } from './support/harness.ts';

const maskOf = (pid: number, name: string): string =>
  new RegExp(`^${name}:\\s+(\\w+)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!;

t.test('continuous SIGHUPs replace the daemon again and again, and end nothing', async (t) => {
  const daemon = await Daemon.start(t);
  const { id, process: held } = await daemon.spawn(['sleep', '1000']);
  const storm = setInterval(() => process.kill(daemon.pid, 'SIGHUP'), 1);
  t.teardown(() => clearInterval(storm));
  for (let image = 1; image <= 3; image += 1) await daemon.ready(daemon.entries.length);
  clearInterval(storm);
  // A late signal may cause one more replacement.
  await eventually(async () => (await daemon.get(`/v1/handles/${id}`).catch(() => null))?.body.state === 'running');
  process.kill(held.pid, 'SIGKILL');
  process.kill(daemon.pid, 'SIGTERM');
  t.equal(await daemon.exited, 0, 'it stops on SIGTERM');
});

t.test('after an upgrade the daemon and its children have no leftover signal mask or variable', async (t) => {
  const daemon = await Daemon.start(t);
  const environment = async (): Promise<string> => {
    const { id } = await daemon.spawn(['env'], {}, { stdout: 'capture' });
    await daemon.waitid(id);
    return (await daemon.get(`/v1/handles/${id}/stdout`)).text;
  };
  const descriptors = daemon.descriptors;
  const before = await environment();
  await daemon.upgrade();
  t.equal(maskOf(daemon.pid, 'SigBlk'), '0000000000000000');
  t.equal(await environment(), before);
  const { process: child } = await daemon.spawn(['sleep', '1000']);
  t.equal(maskOf(child.pid, 'SigBlk'), '0000000000000000');
  process.kill(child.pid, 'SIGKILL');
  await daemon.upgrade();
  await daemon.upgrade();
  t.ok(daemon.descriptors <= descriptors + 2, 'upgrades leak no descriptors');
});

const skip = process.arch === 'x64' ? false : 'only the code for x64 can be assembled here';

t.test('the library that keeps signals blocked contains the code that its comments state', { skip }, (t) => {
  const directory = temporaryDirectory(t);
  const source = readFileSync(join(import.meta.dirname, '../src/kernel/signal-shield.ts'), 'utf8');
  const x64 = source.slice(source.indexOf('x64: ['), source.indexOf('arm64: ['));
  const lines = [...x64.matchAll(/^ +'([0-9a-f]+)', \/\/ +(.*?)(?: {3,}.*)?$/gm)];
  writeFileSync(join(directory, 'code.s'), `.intel_syntax noprefix\n${lines.map(([, , text]) => text).join('\n')}\n`);
  execFileSync('gcc', ['-c', '-o', 'code.o', 'code.s'], { cwd: directory });
  execFileSync('objcopy', ['-O', 'binary', '-j', '.text', 'code.o', 'code.bin'], { cwd: directory });
  const assembled = readFileSync(join(directory, 'code.bin')).toString('hex');
  t.equal(assembled, lines.map(([, bytes]) => bytes).join(''));
  t.ok(assembled.length > 0);
  t.end();
});
