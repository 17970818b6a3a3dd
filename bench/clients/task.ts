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
  /** The program that writes the time into the file. */
  child: string;
  file: string;
  /** Further fields of each spawn. */
  spawn?: object;
  /** Starts processes that run the program; they are orphans then. Measures to `settled` instead of `exited`. */
  orphans?: string;
}

export interface MassTask {
  socket: string;
  count: number;
  /** The program that writes the time into the file and kills the pids in the other file. */
  killer: string;
  file: string;
  pidsFile: string;
}

export interface ParkTask {
  socket: string;
  /** The pid of the server. */
  pid: number;
  /** The requested paths, as a JSON array. */
  pathsFile: string;
  /** How many requests are parked and dropped beforehand. */
  warmUp: number;
}

export interface BroadcastTask {
  socket: string;
  subscribers: number;
  /** How many events each subscriber receives. */
  events: number;
  /** What causes them: a program, or that many bytes to a socket. */
  stimulus: { command: string; args: string[] } | { socket: string };
}

export interface StopsTask {
  socket: string;
  /** A file with the pids of children, one of which is stopped and continued. */
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
  /** The expected status of every answer. */
  status: number;
  connections: number;
  warmUpMs: number;
  durationMs: number;
}

export interface LoadResult {
  perSecond: number;
  p50Us: number;
  /** The client's own share of one core. Near 1 the client was the bottleneck. */
  busy: number;
}

/** Parses this process's task, its only argument, as JSON. */
export function taskOf<T>(): T {
  return JSON.parse(process.argv[2]!) as T;
}

export function report(result: unknown): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
