import { access, constants, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { notAllowed } from '../clients/client.ts';
import type { SpawnRule } from '../clients/rights.ts';
import type { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { findGroup, findUser, groupsOf } from '../kernel/users.ts';
import { Semaphore } from '../model/semaphore.ts';
import { explained } from '../spawn/launch-problems.ts';
import { candidates, environmentOf, type LaunchRequest, type OutputTarget } from '../spawn/launch-request.ts';
import { permittedBounds } from './permit-bounds.ts';

/** How many requests may resolve paths at a time. If a file system hangs, each blocks one of the four threads of libuv. */
const MOST_RESOLVING = 2;
const resolving = new Semaphore(MOST_RESOLVING);

/**
 * Requires that the policy permits a request.
 * @returns the request as it is carried out: its paths are the real ones, and the child refuses symbolic links in them, so that what was
 *   checked is what is used
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
  const program = await real(await programOf(request, cwd));
  if (program === null || !(await someOf(rule.programs, (path) => isProgram(path, program))))
    throw notAllowed('spawn this program');
  const user = permittedUser(rule, request);
  const stdout = await outputWithin(rule, request.stdout);
  const stderr = request.stderr === 'stdout' ? 'stdout' : await outputWithin(rule, request.stderr);
  return {
    ...request,
    ...permittedBounds(rule, request),
    user,
    program,
    cwd,
    cwdLiterally: cwd !== '/',
    stdout,
    stderr,
  };
}

/** Returns the user to run as. The first of the list is the default. No process gets a group that its user is not in. */
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
 * Resolves the symbolic links in the directory of a path. The last part stays as it is, because a program that is many in one (busybox)
 * behaves by its name.
 */
async function real(path: string): Promise<string | null> {
  try {
    return join(await realpath(dirname(path)), basename(path));
  } catch {
    return null;
  }
}

async function isProgram(allowed: string, path: string): Promise<boolean> {
  return allowed.endsWith('/') ? isBelow(allowed, path) : (await real(allowed)) === path;
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
    throw notAllowed(what); // the answer does not say whether it exists
  }
  if (!(await someOf(directories, (directory) => isBelow(directory, found)))) throw notAllowed(what);
  return found;
}

async function outputWithin(rule: SpawnRule, target: OutputTarget): Promise<OutputTarget> {
  // The daemon's own output is its log.
  if (target === 'inherit') throw notAllowed('write to the daemon’s own output');
  if (typeof target === 'string') return target;
  const file = await real(target.file);
  if (file === null || !(await someOf(rule.directories, (directory) => isBelow(directory, file))))
    throw notAllowed('write to this file');
  return { ...target, file, literally: true };
}
