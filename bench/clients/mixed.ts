/** Runs a mix of client operations in several workers for a time; prints the counts and the unexpected answers. */
import { setTimeout } from 'node:timers/promises';
import { Api, Unexpected } from './api.ts';
import { scenarios } from './scenarios.ts';
import { report, taskOf } from './task.ts';

export interface MixedTask {
  socket: string;
  workers: number;
  /** Interval between the starts of two operations of a worker: the load is chosen, not the greatest possible. */
  everyMs: number;
  durationMs: number;
}

export interface MixedResult {
  done: Record<string, number>;
  unexpected: number;
  /** The first unexpected answers. */
  examples: string[];
}

const EXAMPLES = 10;

const { socket, workers, everyMs, durationMs } = taskOf<MixedTask>();
const end = performance.now() + durationMs;
const result: MixedResult = {
  done: Object.fromEntries(Object.keys(scenarios).map((name) => [name, 0])),
  unexpected: 0,
  examples: [],
};

async function work(worker: number, api: Api): Promise<void> {
  const names = Object.keys(scenarios);
  for (let turn = worker; performance.now() < end; turn += 1) {
    const name = names[turn % names.length]!;
    const next = performance.now() + everyMs;
    try {
      await scenarios[name]!(api);
      result.done[name]! += 1;
    } catch (error) {
      result.unexpected += 1;
      if (result.examples.length < EXAMPLES) result.examples.push(`${name}: ${textOf(error)}`);
    }
    await setTimeout(Math.max(0, next - performance.now()));
  }
}

function textOf(error: unknown): string {
  if (error instanceof Unexpected) return error.message;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

using api = new Api(socket);
await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker, api)));
report(result);
