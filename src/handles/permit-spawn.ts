import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { notAllowed } from '../clients/client.ts';
import type { SpawnRule } from '../clients/rights.ts';
import { lookUp } from '../kernel/spawn.ts';
import { environmentOf, explain, type LaunchRequest, type OutputTarget } from './launch.ts';

/**
 * What of a request a client may have, as it is then carried out: paths are the real ones, so that what was looked at is what
 * is used, whatever becomes of a symbolic link meanwhile.
 * @throws {Problem} EPERM; ENOENT and EACCES for a program that cannot be found
 */
export function permitted(rule: SpawnRule | boolean, request: LaunchRequest): LaunchRequest {
  if (rule === true) return request;
  if (rule === false) throw notAllowed('spawn');
  for (const name of Object.keys(request.env))
    if (!rule.environment.some((pattern) => matches(pattern, name))) throw notAllowed(`set the variable ${name}`);
  const cwd = request.cwd === '/' ? '/' : within(rule.directories, request.cwd, 'work in this directory');
  const program = programOf(request, cwd);
  const place = real(program);
  if (place === null || !rule.programs.some((path) => isProgram(path, place))) throw notAllowed('spawn this program');
  const stdout = outputWithin(rule, request.stdout);
  const stderr = request.stderr === 'stdout' ? 'stdout' : outputWithin(rule, request.stderr);
  return { ...request, program: place, cwd, stdout, stderr };
}

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

function programOf(request: LaunchRequest, cwd: string): string {
  try {
    return resolve(cwd, lookUp(request.argv[0], environmentOf(request).PATH));
  } catch (error) {
    throw explain(error);
  }
}

/**
 * Where a name really is: its directory without symbolic links. Its own last part is left as it is, since a program that is
 * many programs in one (busybox) is told by it.
 */
function real(path: string): string | null {
  try {
    return join(realpathSync(dirname(path)), basename(path));
  } catch {
    return null;
  }
}

function isProgram(allowed: string, place: string): boolean {
  return allowed.endsWith('/') ? isBelow(allowed, place) : real(allowed) === place;
}

function isBelow(directory: string, path: string): boolean {
  try {
    const real = realpathSync(directory);
    return real === '/' || path === real || path.startsWith(`${real}/`);
  } catch {
    return false;
  }
}

/** @returns the real path */
function within(directories: readonly string[], path: string, what: string): string {
  let found: string;
  try {
    found = realpathSync(path);
  } catch {
    throw notAllowed(what); // nor is it told whether it is there
  }
  if (!directories.some((directory) => isBelow(directory, found))) throw notAllowed(what);
  return found;
}

function outputWithin(rule: SpawnRule, target: OutputTarget): OutputTarget {
  // The daemon's own output is its log.
  if (target === 'inherit') throw notAllowed('write to the daemon’s own output');
  if (typeof target === 'string') return target;
  const place = real(target.file);
  if (place === null || !rule.directories.some((directory) => isBelow(directory, place)))
    throw notAllowed('write to this file');
  return { ...target, file: place, literally: true };
}
