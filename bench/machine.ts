import { arch, cpus, loadavg, release } from 'node:os';

/** The machine that the figures were measured on. */
export interface Machine {
  cores: number;
  kernel: string;
  node: string;
  architecture: string;
  /** Load averages over the last 1, 5 and 15 minutes. */
  load: number[];
}

export function machineOf(): Machine {
  return {
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    architecture: arch(),
    load: loadavg().map((one) => Number(one.toFixed(2))),
  };
}

/** Describes the machine in one line. */
export function machineLine({ cores, kernel, node, load }: Machine): string {
  return `${cores} cores, Linux ${kernel}, Node ${node}, load ${load[0]}`;
}
