import type { Descriptor } from '../kernel/descriptor.ts';
import { Pidfd } from '../kernel/pidfd.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { StopRecord } from '../model/stop-reports.ts';
import type { ProcessTable } from './process-table.ts';

/** What the next image of the daemon gets of the processes. Descriptors go by number, and live over execve(2). */
export interface HandedProcesses {
  /** By the journal's number of the open file description. */
  pidfds: { description: number; fd: number }[];
  /** Leaderless groups, by the journal's number of the process that led them. */
  groups: { process: number; pid: number; handles: number; fd: number }[];
  /** Stops and continues that clients have not read, by the journal's number of the process. */
  pauses: { process: number; pauses: StopRecord }[];
  /** Stops of children without a handle. */
  stops: WaitEvent[];
}

/** Hands the processes over; their descriptors are left open over the next execve(2). */
export function handOverProcesses(table: ProcessTable): HandedProcesses {
  const kept = (pidfd: Descriptor): number => {
    pidfd.keepOverExec();
    return pidfd.fd;
  };
  const processes = [...table.values()];
  return {
    pidfds: processes.flatMap(({ descriptions }) =>
      [...descriptions].map(({ id, pidfd }) => ({ description: id, fd: kept(pidfd!) })),
    ),
    groups: [...table.groups.entries()].map(({ pidfd, ...group }) => ({ ...group, fd: kept(pidfd) })),
    pauses: processes.map(({ id, stops }) => ({ process: id, pauses: stops.record })),
    stops: table.stops.all,
  };
}

/** Returns the pidfds that were handed over, by the journal's number of the description. */
export function pidfdsOf({ pidfds }: Pick<HandedProcesses, 'pidfds'>): Map<number, Pidfd> {
  return new Map(pidfds.map(({ description, fd }) => [description, new Pidfd(fd)]));
}
