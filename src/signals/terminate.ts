import { constants } from 'node:os';
import type { Caller } from '../clients/caller.ts';
import type { Handle } from '../handles/handle.ts';
import { isErrno } from '../kernel/errno.ts';
import type { Parking } from '../waits/parking.ts';
import { isGone, type Signals } from './signals.ts';

const { SIGTERM, SIGCONT, SIGKILL } = constants.signals;

/**
 * Ends a process: SIGTERM, SIGCONT (a stopped process takes no SIGTERM), and SIGKILL after the grace, all to the group of a
 * child that leads one, even if the child itself has ended by then. It does what it said even if the caller goes away.
 * @param graceMs milliseconds
 * @returns once it has ended; `gone` where the caller left before
 * @throws {Problem} EPERM; EDQUOT; ESHUTDOWN
 */
export async function terminate(
  signals: Signals,
  parking: Parking,
  handle: Handle,
  graceMs: number,
  caller: Caller,
): Promise<'ended' | 'gone'> {
  const { process } = handle;
  // Before anything is sent: who is refused has done nothing.
  if (process.ending === null) caller.client?.requireRoom('parkedWaits');
  const target = signals.reach(handle);
  if (target !== null) {
    const { pidfd, scope } = target;
    try {
      signals.send(handle, SIGTERM, scope);
      signals.send(handle, SIGCONT, scope);
    } catch (error) {
      if (!isGone(error)) {
        pidfd.close();
        throw error;
      }
    }
    // The group may outlive its leader, so the leader's end does not stop the timer.
    setTimeout(() => {
      using last = pidfd;
      try {
        last.signal(SIGKILL, scope);
      } catch (error) {
        if (!isErrno(error, 'ESRCH', 'EPERM')) throw error;
      }
    }, graceMs).unref();
  }
  if (process.ending !== null) return 'ended';
  const isOver = (): 'ended' | null => (process.ending === null ? null : 'ended');
  const result = await parking.park([handle], isOver, { timeoutMs: undefined, caller });
  return result === 'gone' ? 'gone' : 'ended';
}
