import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { hashOf } from '../../src/clients/tokens.ts';
import { Daemon, type DaemonOptions, type RequestOptions, temporaryDirectory } from './harness.ts';

export const tokenOf = (name: string): string => `${name}-0123456789abcdef`;

/** Returns the options of a request by the client with this name. */
export const as = (name: string, headers: Record<string, string> = {}): RequestOptions => ({
  headers: { authorization: `Bearer ${tokenOf(name)}`, ...headers },
});

export const full = { open: 'any', spawn: true, signal: true };

/** Builds a policy for these clients with their tokens. The user of the test has all rights. */
export function policyOf(clients: Record<string, object>): object {
  const named = Object.entries(clients).map(([name, entry]) => [
    name,
    { tokens: [`sha256:${hashOf(tokenOf(name))}`], ...entry },
  ]);
  return { clients: { [`uid:${process.getuid!()}`]: { ...full, admin: true }, ...Object.fromEntries(named) } };
}

/** Replaces a policy file atomically. */
export function writePolicy(path: string, policy: object): void {
  writeFileSync(`${path}.new`, JSON.stringify(policy));
  renameSync(`${path}.new`, path);
}

/** Starts a daemon with a policy for these clients. */
export async function startWithPolicy(
  t: Test,
  clients: Record<string, object>,
  { args = [], ...options }: DaemonOptions = {},
): Promise<Daemon> {
  const directory = options.directory ?? temporaryDirectory(t);
  const file = join(directory, 'policy.json');
  writePolicy(file, policyOf(clients));
  return Daemon.start(t, { ...options, directory, args: ['--policy', file, ...args] });
}
