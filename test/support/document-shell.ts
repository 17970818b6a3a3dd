import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { MAIN } from './command.ts';
import type { Block } from './documents.ts';

/** Runs the blocks of a document like a reader who pastes them one after another into one shell. */
export interface DocumentShell {
  /** The home and the initial working directory. */
  directory: string;
  /** Texts of the document and their replacements in the test: sockets, ports, paths. */
  instead: Record<string, string>;
}

/**
 * Runs the shell blocks of a document. Before, it writes the files that the document shows: blocks of another language
 * with a file name after the language, such as ```js runner.mjs.
 * @returns the output of each block
 */
export function runBlocks(t: Test, blocks: readonly Block[], { directory, instead }: DocumentShell): string[] {
  const adapt = (text: string): string =>
    Object.entries(instead).reduce((before, [from, to]) => before.replaceAll(from, to), text);
  for (const { info, code } of blocks)
    if (info[1]?.includes('.')) writeFileSync(join(directory, info[1]), adapt(code), { mode: 0o600 });
  const commands = blocks.filter(isRun).map(({ code }) => adapt(code));
  // The last line prevents the shell from executing its last command in its own process, which would reap no children.
  const script = [...commands.map((code) => `printf '\\n${MARK}\\n'\n${code}`), ':'].join('\n');
  const { stdout, stderr, status, signal } = spawnSync('bash', ['-euo', 'pipefail', '-c', script], {
    cwd: directory,
    env: {
      PATH: [programs(directory), process.env.PATH].join(':'),
      HOME: directory,
      WAITD_TEST: process.env.WAITD_TEST,
      NODE_NO_WARNINGS: '1',
    },
    encoding: 'utf8',
    // bash treats a socket as stdin as a remote login, and reads additional files.
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 240_000,
  });
  t.equal(status, 0, `the commands succeed (${signal ?? status}): ${stderr}\n${status === 0 ? '' : stdout}`);
  return stdout.split(`\n${MARK}\n`).slice(1);
}

export const isRun = ({ info }: Block): boolean => info[0] === 'sh' && !info.includes('no-run');

const MARK = '--- a block ---';

/** Creates a directory with the programs that a reader has installed: waitd and its Node.js. */
function programs(directory: string): string {
  const bin = join(directory, '.bin');
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, 'node'));
  writeFileSync(join(bin, 'waitd'), `#!/bin/sh\nexec '${process.execPath}' --disable-sigusr1 '${MAIN}' "$@"\n`);
  chmodSync(join(bin, 'waitd'), 0o755);
  return bin;
}

/**
 * Compares an output with the one in a document. Ignores what differs between runs: ids, uids, tokens, times, numbers
 * of three and more digits. `…` matches anything.
 */
export function isAsShown(printed: string, shown: string): boolean {
  const lines = plain(shown).split('\n');
  const pattern = lines.map((line) => line.split('…').map(literally).join('.*'));
  return new RegExp(`^${pattern.join('\n')}$`, 's').test(plain(printed));
}

const literally = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&');

const plain = (text: string): string =>
  text
    .trim()
    .replaceAll('\r', '')
    .replaceAll(/("?uid"?:)\d+/g, '$1N')
    .replaceAll(/\b[hwn]_[\w-]{10,}/g, 'ID')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replaceAll(/\b[0-9a-f]{8}-[0-9a-f-]{27}\b/g, 'UUID')
    .replaceAll(/\b[0-9a-f]{64}\b/g, 'HASH')
    .replaceAll(/\b[\w-]{43}(?![\w-])/g, 'TOKEN')
    .replaceAll(/\d{3,}/g, 'N');

/** Finds a free port. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
