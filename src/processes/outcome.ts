import { signalName } from '../kernel/signals.ts';
import type { Siginfo } from '../kernel/waitid.ts';

/** How a process ended. Never a number that was no exit code. */
export type Outcome =
  | { reason: 'exited'; exitCode: number }
  /** `oom`: by the kernel, because its cgroup had no memory left. */
  | { reason: 'killed'; signal: string; oom?: true | undefined }
  | { reason: 'dumped'; signal: string }
  | { reason: 'unknown'; detail: string };

/** How a process was stopped or went on. */
export type Pause =
  | { reason: 'stopped'; signal: string }
  | { reason: 'trapped'; signal: string }
  | { reason: 'continued' };

/** What a siginfo tells. */
export function outcomeOf({ code, status }: Siginfo): Outcome | Pause {
  switch (code) {
    case 'CLD_EXITED':
      return { reason: 'exited', exitCode: status };
    case 'CLD_KILLED':
      return { reason: 'killed', signal: signalName(status) };
    case 'CLD_DUMPED':
      return { reason: 'dumped', signal: signalName(status) };
    case 'CLD_STOPPED':
      return { reason: 'stopped', signal: signalName(status) };
    case 'CLD_TRAPPED':
      return { reason: 'trapped', signal: signalName(status) };
    case 'CLD_CONTINUED':
      return { reason: 'continued' };
  }
}

/** What the raw wait status of an ended process tells (wait(2): WIFEXITED, WTERMSIG, WCOREDUMP). */
export function outcomeOfStatus(status: number): Outcome {
  const signal = status & 0x7f;
  if (signal === 0) return { reason: 'exited', exitCode: (status >> 8) & 0xff };
  return { reason: (status & 0x80) === 0 ? 'killed' : 'dumped', signal: signalName(signal) };
}
