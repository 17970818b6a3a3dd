export interface SpawnTask {
  socket: string;
  count: number;
  warmUp: number;
  inFlight: number;
}

export interface ExitTask {
  socket: string;
  count: number;
  warmUp: number;
  /** The program that stamps the clock into the file. */
  child: string;
  file: string;
}

export interface MassTask {
  socket: string;
  count: number;
  /** The program that stamps the clock into the file, and kills whom the other file names. */
  killer: string;
  file: string;
  pidsFile: string;
}

export interface ParkTask {
  socket: string;
  /** The server's. */
  pid: number;
  /** The paths that are asked for, as a JSON array. */
  pathsFile: string;
  /** How many requests are parked and dropped beforehand. */
  warmUp: number;
}

export interface BroadcastTask {
  socket: string;
  subscribers: number;
  /** How many each subscriber gets. */
  events: number;
  /** What causes them: a program, or as many bytes to a socket. */
  stimulus: { command: string; args: string[] } | { socket: string };
}

export interface StopsTask {
  socket: string;
  /** Names the pids of children, of which one is stopped and continued. */
  pidsFile: string;
  /** How many processes start and end. */
  perSecond: number;
  warmUpMs: number;
  watchMs: number;
}

export interface StopsResult {
  /** CLOCK_MONOTONIC, in microseconds. */
  from: number;
  to: number;
  /** How many processes were started in between. */
  started: number;
}

export interface LoadTask {
  socket: string;
  request: string;
  /** The status that every answer must have. */
  status: number;
  connections: number;
  warmUpMs: number;
  durationMs: number;
}

export interface LoadResult {
  perSecond: number;
  p50Us: number;
  /** The share of one core that the client itself took: near 1 it is the client that was measured. */
  busy: number;
}

/** What this process was started to do: its only argument, as JSON. */
export function taskOf<T>(): T {
  return JSON.parse(process.argv[2]!) as T;
}

export function report(result: unknown): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
