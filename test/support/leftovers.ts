import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';

/** Reads a file below /proc. @returns '' if its process has ended */
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

/** Lists all descendants of this process, parents before their children. */
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

/** Lists all other processes with this text in their environment. */
const startedWith = (text: string): number[] =>
  pids().filter((pid) => pid !== process.pid && read(`${pid}/environ`).includes(text));

export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // The process has ended, or belongs to another user.
  }
}

/** Kills all processes with this text in their environment. Repeats until none is left, because they may fork. */
export function killStartedWith(text: string): void {
  for (let round = 0; round < 10; round += 1) {
    const left = startedWith(text);
    if (left.length === 0) return;
    for (const pid of left) kill(pid);
  }
}

/** Lists the mount points at a path and below it, innermost first. */
export function mountsBelow(directory: string): string[] {
  const points = read('self/mountinfo')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  return points.filter((point) => point === directory || point.startsWith(`${directory}/`)).reverse();
}

/** Unmounts everything in a tree, and removes the tree. @throws {Error} if something stays mounted */
export function removeTree(directory: string): void {
  for (const point of mountsBelow(directory)) spawnSync('umount', ['-l', point]);
  const mounted = mountsBelow(directory);
  if (mounted.length > 0) throw new Error(`${mounted.join(', ')} cannot be unmounted: ${directory} is not removed`);
  rmSync(directory, { recursive: true, force: true });
}
