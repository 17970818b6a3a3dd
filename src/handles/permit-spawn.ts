import { access, constants, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { notAllowed } from '../clients/client.ts';
import type { SpawnRule } from '../clients/rights.ts';
import type { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { findGroup, findUser, groupsOf } from '../kernel/users.ts';
import { explained } from '../spawn/launch-problems.ts';
import { candidates, environmentOf, type LaunchRequest, type OutputTarget } from '../spawn/launch-request.ts';
import { Semaphore } from '../spawn/semaphore.ts';
import { permittedBounds } from './permit-bounds.ts';

/** How many requests may have paths resolved at a time: a file system that hangs takes a thread for each, and there are four. */
const MOST_RESOLVING = 2;
const resolving = new Semaphore(MOST_RESOLVING);

/**
 * What of a request a client may have, as it is then carried out: paths are the real ones, and the child refuses symbolic links in
 * them, so that what was looked at is what is used.
 * @throws {Problem} EPERM; ENOENT and EACCES for a program that cannot be found
 */
export async function permitted(rule: SpawnRule | boolean, request: LaunchRequest): Promise<LaunchRequest> {
  if (rule === true) return request;
  if (rule === false) throw notAllowed('spawn');
  return resolving.run(() => permittedBy(rule, request));
}

async function permittedBy(rule: SpawnRule, request: LaunchRequest): Promise<LaunchRequest> {
  for (const name of Object.keys(request.env))
    if (!rule.environment.some((pattern) => matches(pattern, name))) throw notAllowed(`set the variable ${name}`);
  const cwd = request.cwd === '/' ? '/' : await within(rule.directories, request.cwd, 'work in this directory');
  const place = await real(await programOf(request, cwd));
  if (place === null || !(await someOf(rule.programs, (path) => isProgram(path, place))))
    throw notAllowed('spawn this program');
  const user = permittedUser(rule, request);
  const stdout = await outputWithin(rule, request.stdout);
  const stderr = request.stderr === 'stdout' ? 'stdout' : await outputWithin(rule, request.stderr);
  return {
    ...request,
    ...permittedBounds(rule, request),
    user,
    program: place,
    cwd,
    cwdLiterally: cwd !== '/',
    stdout,
    stderr,
  };
}

/** The first of the list is for who names none; and nobody is in groups that its user is not in. */
function permittedUser({ users }: SpawnRule, { user = users[0], group }: LaunchRequest): string | number | undefined {
  if (users.includes('*')) return user === '*' ? undefined : user;
  const uid = user === undefined ? process.getuid!() : uidOf(user);
  const allowed = users.length === 0 ? [process.getuid!()] : users.map(uidOf);
  if (uid === null || !allowed.includes(uid)) throw notAllowed('run programs as this user');
  if (group !== undefined) {
    const found = findUser(uid);
    const gid = typeof group === 'number' ? group : findGroup(group);
    if (found === null || gid === null || !groupsOf(found).includes(gid))
      throw notAllowed('run programs in a group that their user is not in');
  }
  return user;
}

const uidOf = (user: string | number): number | null =>
  typeof user === 'number' ? user : (findUser(user)?.uid ?? null);

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** @throws {Problem} ENOENT; EACCES where the name is found, but nothing that may be executed */
async function programOf(request: LaunchRequest, cwd: string): Promise<string> {
  let problem: Problem | null = null;
  for (const candidate of candidates(request.argv[0], environmentOf(request).PATH)) {
    const path = resolve(cwd, candidate);
    if (candidate === request.argv[0]) return path;
    try {
      if (!(await stat(path)).isFile()) continue;
      await access(path, constants.X_OK);
      return path;
    } catch (error) {
      if (isErrno(error, 'EACCES')) problem = explained('EACCES', 'The program');
    }
  }
  throw problem ?? explained('ENOENT', 'The program');
}

/**
 * Where a name really is: its directory without symbolic links. Its own last part is left as it is, since a program that is
 * many programs in one (busybox) is told by it.
 */
async function real(path: string): Promise<string | null> {
  try {
    return join(await realpath(dirname(path)), basename(path));
  } catch {
    return null;
  }
}

async function isProgram(allowed: string, place: string): Promise<boolean> {
  return allowed.endsWith('/') ? isBelow(allowed, place) : (await real(allowed)) === place;
}

async function isBelow(directory: string, path: string): Promise<boolean> {
  try {
    const real = await realpath(directory);
    return real === '/' || path === real || path.startsWith(`${real}/`);
  } catch {
    return false;
  }
}

async function someOf<T>(all: readonly T[], fits: (each: T) => Promise<boolean>): Promise<boolean> {
  for (const each of all) if (await fits(each)) return true;
  return false;
}

/** @returns the real path */
async function within(directories: readonly string[], path: string, what: string): Promise<string> {
  let found: string;
  try {
    found = await realpath(path);
  } catch {
    throw notAllowed(what); // nor is it told whether it is there
  }
  if (!(await someOf(directories, (directory) => isBelow(directory, found)))) throw notAllowed(what);
  return found;
}

async function outputWithin(rule: SpawnRule, target: OutputTarget): Promise<OutputTarget> {
  // The daemon's own output is its log.
  if (target === 'inherit') throw notAllowed('write to the daemon’s own output');
  if (typeof target === 'string') return target;
  const place = await real(target.file);
  if (place === null || !(await someOf(rule.directories, (directory) => isBelow(directory, place))))
    throw notAllowed('write to this file');
  return { ...target, file: place, literally: true };
}
