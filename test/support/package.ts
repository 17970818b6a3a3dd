import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const TREE = join(import.meta.dirname, '../..');

// npm must not inherit the loaders of the test runner.
const { NODE_OPTIONS: _, ...env } = process.env;

const npm = (...args: string[]): string =>
  execFileSync('env', ['-u', 'NODE_OPTIONS', 'npm', ...args], {
    cwd: TREE,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });

/** Packs this tree into a directory. @returns the path of the package */
export function pack(directory: string): string {
  npm('pack', '--silent', '--pack-destination', directory);
  return join(directory, readdirSync(directory).find((name) => name.endsWith('.tgz'))!);
}

/** Installs a package below a prefix, as `npm install -g` does. */
export function installGlobally(packed: string, prefix: string): void {
  npm('install', '-g', '--silent', '--no-audit', '--no-fund', '--prefix', prefix, packed);
}
