import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';

/** A file below /proc, or '' where its process is gone. */
function read(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, 'utf8');
  } catch {
    return '';
  }
}

const pids = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

/** Every process below this one, parents before their children. */
export function descendantsOf(ancestor: number): number[] {
  const children = new Map<number, number[]>();
  for (const pid of pids()) {
    const stat = read(`${pid}/stat`);
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const found = [ancestor];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found.slice(1);
}

/** Every other process that was started with this text in its environment. */
const startedWith = (text: string): number[] =>
  pids().filter((pid) => pid !== process.pid && read(`${pid}/environ`).includes(text));

export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile, or is another user's.
  }
}

/** Kills what was started with this text in its environment, until none is left that was forked meanwhile. */
export function killStartedWith(text: string): void {
  for (let round = 0; round < 10; round += 1) {
    const left = startedWith(text);
    if (left.length === 0) return;
    for (const pid of left) kill(pid);
  }
}

/** Where something is mounted at this path or below it, the innermost first. */
export function mountsBelow(directory: string): string[] {
  const points = read('self/mountinfo')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  return points.filter((point) => point === directory || point.startsWith(`${directory}/`)).reverse();
}

/** Removes a tree, and nothing that is mounted in it. @throws {Error} where something stays mounted */
export function removeTree(directory: string): void {
  for (const point of mountsBelow(directory)) spawnSync('umount', ['-l', point]);
  const mounted = mountsBelow(directory);
  if (mounted.length > 0) throw new Error(`${mounted.join(', ')} cannot be unmounted: ${directory} is left as it is`);
  rmSync(directory, { recursive: true, force: true });
}
