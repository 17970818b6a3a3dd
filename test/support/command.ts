import { spawnSync } from 'node:child_process';
import { chownSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { temporaryDirectory } from './harness.ts';

export const MAIN = join(import.meta.dirname, '../../src/main.ts');
export const isRoot = process.getuid!() === 0;
export const NOBODY = 65534;

/** Makes a command that root runs one of an ordinary user. */
export const asNobody = isRoot ? ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'] : [];

/**
 * Why another user cannot run the daemon from this checkout, for a test's `skip`; false where it can.
 * A checkout below a private home, such as /root, is closed to everyone but its owner.
 */
export const closedToOthers: string | false =
  isRoot &&
  spawnSync(asNobody[0]!, [...asNobody.slice(1), process.execPath, '-e', 'fs.accessSync(process.argv[1])', MAIN])
    .status !== 0
    ? 'the checkout lies in a directory that other users may not enter'
    : false;

/** A directory of the user that {@link asNobody} becomes. */
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
  /** What starts node; `setpriv` and the like. */
  prefix?: string[];
}

/** Runs a command of waitd that is expected to end. */
export function waitd(args: string[], { env = {}, prefix = [] }: CommandOptions = {}): Ended {
  // The loaders of the test runner are not for another user.
  return spawnSync('env', ['-u', 'NODE_OPTIONS', ...prefix, process.execPath, MAIN, ...args], {
    env: { PATH: process.env.PATH, NODE_NO_WARNINGS: '1', ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
}

/** Everything below a directory, by its path from there. */
export const treeOf = (directory: string): string[] => readdirSync(directory, { recursive: true }).map(String).sort();

export const oneSentence = /^waitd: [^\n]+\n$/;
