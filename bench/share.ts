import { readFileSync } from 'node:fs';

/** What V8 writes; times in microseconds, the beginning by CLOCK_MONOTONIC. */
interface Profile {
  nodes: { id: number; callFrame: { functionName: string }; children?: number[] }[];
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

/**
 * How much of a time a function was running, with all that it called, as a CPU profile shows it.
 * @param between times by CLOCK_MONOTONIC in microseconds
 * @returns percent of that time
 * @throws where the profile has no such function
 */
export function shareOf(file: string, name: string, between: readonly { from: number; to: number }[]): number[] {
  const { nodes, startTime, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const within = new Set<number>();
  const mark = (id: number): void => {
    within.add(id);
    byId.get(id)!.children?.forEach(mark);
  };
  for (const { id, callFrame } of nodes) if (callFrame.functionName === name) mark(id);
  if (within.size === 0) throw new Error(`the profile has no function ${name}`);

  const running = between.map(() => 0);
  let at = startTime;
  for (const [index, id] of samples.entries()) {
    const delta = timeDeltas[index]!;
    at += delta;
    const window = between.findIndex(({ from, to }) => at >= from && at < to);
    if (window !== -1 && within.has(id)) running[window]! += delta;
  }
  return between.map(({ from, to }, window) => (running[window]! * 100) / (to - from));
}
