import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const TREE = join(import.meta.dirname, '../..');

// The loaders of the test runner are not for npm.
const { NODE_OPTIONS: _, ...env } = process.env;

const npm = (...args: string[]): string =>
  execFileSync('env', ['-u', 'NODE_OPTIONS', 'npm', ...args], {
    cwd: TREE,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });

/** Packs this tree. @returns the path of the package, in a directory */
export function pack(directory: string): string {
  npm('pack', '--silent', '--pack-destination', directory);
  return join(directory, readdirSync(directory).find((name) => name.endsWith('.tgz'))!);
}

/** Installs a package as `npm install -g` does, below a prefix. */
export function installGlobally(packed: string, prefix: string): void {
  npm('install', '-g', '--silent', '--no-audit', '--no-fund', '--prefix', prefix, packed);
}
