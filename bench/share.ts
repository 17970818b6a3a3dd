import { readFileSync } from 'node:fs';

/** The part of V8's CPU profile format that is read. Times are in microseconds; startTime is CLOCK_MONOTONIC. */
interface Profile {
  nodes: { id: number; callFrame: { functionName: string }; children?: number[] }[];
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

/**
 * Computes the share of an interval in which a function ran, callees included, from a CPU profile.
 * @param between start and end of the interval: CLOCK_MONOTONIC in microseconds
 * @returns percent of the interval
 * @throws if the function is not in the profile
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
