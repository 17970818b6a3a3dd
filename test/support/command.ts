import { spawnSync } from 'node:child_process';
import { chownSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { compileCache, temporaryDirectory } from './harness.ts';

export const MAIN = join(import.meta.dirname, '../../src/main.ts');
export const isRoot = process.getuid!() === 0;
export const NOBODY = 65534;

/** The prefix that makes root run a command as an ordinary user. */
export const asNobody = isRoot ? ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'] : [];

/**
 * The reason why another user cannot run the daemon from this checkout, for a test's `skip`; false if that user can.
 * For example, a checkout below /root is private to its owner.
 */
export const closedToOthers: string | false =
  isRoot &&
  spawnSync(asNobody[0]!, [...asNobody.slice(1), process.execPath, '-e', 'fs.accessSync(process.argv[1])', MAIN])
    .status !== 0
    ? 'the checkout lies in a directory that other users may not enter'
    : false;

/** Creates a directory that belongs to the user of {@link asNobody}. */
export function homeOf(t: Test): string {
  const home = temporaryDirectory(t);
  if (isRoot) chownSync(home, NOBODY, NOBODY);
  return home;
}

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface CommandOptions {
  env?: Record<string, string>;
  /** A command that starts node, such as `setpriv`. */
  prefix?: string[];
}

/** Runs a command of waitd until it ends. */
export function waitd(args: string[], { env = {}, prefix = [] }: CommandOptions = {}): Ended {
  // Another user may be unable to read the loaders of the test runner.
  return spawnSync('env', ['-u', 'NODE_OPTIONS', ...prefix, process.execPath, MAIN, ...args], {
    env: { PATH: process.env.PATH, NODE_NO_WARNINGS: '1', ...compileCache, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
}

/** Lists everything below a directory by relative path. */
export const treeOf = (directory: string): string[] => readdirSync(directory, { recursive: true }).map(String).sort();

export const oneSentence = /^waitd: [^\n]+\n$/;
