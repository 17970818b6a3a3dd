import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';

/** A server in a process of its own, once it has said that it is ready. */
export async function startServer(args: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
  });
  for await (const data of child.stdout!.iterator({ destroyOnReturn: false }))
    if (String(data).includes('ready')) break;
  child.stdout!.resume();
  return child;
}

export function startDaemon(directory: string, profile: boolean): Promise<ChildProcess> {
  const main = join(import.meta.dirname, '../src/main.ts');
  const listen = `unix:${join(directory, 'waitd.sock')}`;
  const profiling = profile ? ['--cpu-prof', `--cpu-prof-dir=${directory}`] : [];
  return startServer([...profiling, main, 'serve', '--listen', listen, '--state-dir', join(directory, 'state')]);
}

/** Builds the C program; its path. */
export function buildFloor(directory: string): string {
  const program = join(directory, 'floor');
  execFileSync('gcc', ['-O2', '-Wno-unused-result', '-o', program, join(import.meta.dirname, 'floor.c')]);
  return program;
}

export async function stop(child: ChildProcess): Promise<void> {
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await exited;
}
