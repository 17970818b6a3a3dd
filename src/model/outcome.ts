import type { Outcome, Siginfo, StopEvent } from '../../schemas/common.ts';
import { signalName } from '../../schemas/signal-names.ts';

/** Returns the outcome or the stop event that a siginfo describes. */
export function outcomeOf({ code, status }: Siginfo): Outcome | StopEvent {
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

/** Returns the outcome that a raw wait status describes (wait(2): WIFEXITED, WTERMSIG, WCOREDUMP). */
export function outcomeOfStatus(status: number): Outcome {
  const signal = status & 0x7f;
  if (signal === 0) return { reason: 'exited', exitCode: (status >> 8) & 0xff };
  return { reason: (status & 0x80) === 0 ? 'killed' : 'dumped', signal: signalName(signal) };
}
