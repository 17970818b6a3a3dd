import { constants } from 'node:os';
import { signalNumber } from '../../schemas/signal-names.ts';
import type { Cgroups } from '../cgroups/cgroups.ts';
import { Problem } from '../errors/problem.ts';
import { isErrno } from '../kernel/errno.ts';
import { type Features, since } from '../kernel/features.ts';
import type { Pidfd, SignalScope } from '../kernel/pidfd.ts';
import { readStat } from '../kernel/proc.ts';
import type { Handle, Process } from '../model/process.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import { notPermitted, stillGrows } from './refusals.ts';
import { pidsOf, signalTree, type TreeRoot } from './tree.ts';

const { SIGKILL } = constants.signals;

/** Sends signals through pidfds, so that no other process gets them. */
export class Signals {
  readonly #table: ProcessTable;
  readonly #features: Features;
  readonly #cgroups: Cgroups;

  constructor(table: ProcessTable, features: Features, cgroups: Cgroups) {
    this.#cgroups = cgroups;
    this.#table = table;
    this.#features = features;
  }

  /**
   * Sends a signal to a process or its group.
   * @param signal its name or number; 0 only checks whether one could be sent
   * @throws {Problem} ESRCH if the process has ended; EINVAL for the group of a process that leads none; EPERM; EOPNOTSUPP
   */
  send(handle: Handle, signal: string | number, scope: SignalScope): void {
    const number = numberOf(signal, handle);
    if (number === SIGKILL) this.killing(handle.process);
    try {
      if (scope === 'process') this.#toProcess(handle, number);
      else this.#toGroup(handle, number);
    } catch (error) {
      throw explain(error, handle);
    }
  }

  /**
   * Sends a signal to a process and all its descendants, until no search finds another one. Other requests are served in between.
   * @throws {Problem} also ETIMEDOUT if a tree grows as fast as it is killed
   */
  async sendToTree(handle: Handle, signal: string | number): Promise<void> {
    await this.#toTree(handle, numberOf(signal, handle));
  }

  /** Records that the daemon kills this process, so that its end is not taken for the OOM killer's work. */
  killing({ pid }: Pick<Process, 'pid'>): void {
    this.#cgroups.oomKills.killing(pid);
  }

  /** Sends a signal to the process alone, and ignores that it has ended. */
  sendIfThere(handle: Handle, signal: string | number): void {
    try {
      this.send(handle, signal, 'process');
    } catch (error) {
      if (!meansEnded(error)) throw error;
    }
  }

  /**
   * Returns the scope in which the process of a handle is terminated: the group if it is a child that leads or led one.
   * @returns `null` if neither process nor group is left
   */
  reach({ process, description }: Handle): { scope: SignalScope } | null {
    const pidfd = this.#groupPidfd({ process, description });
    if (pidfd === null) return null;
    // The group of a foreign process is its parent's to signal.
    return { scope: process.relation === 'child' ? this.scopeOf(pidfd) : 'process' };
  }

  /** Returns the scope in which a process that was spawned is terminated: the group if it leads or led one. */
  scopeOf(pidfd: Pidfd): SignalScope {
    return this.#features.groupSignal && pidfd.leadsGroup() ? 'group' : 'process';
  }

  #toProcess({ process, description }: Handle, number: number): void {
    if (process.pid === globalThis.process.pid && process.ending === null) throw itself();
    // The kernel accepts a signal to a zombie and does nothing. A client wants to learn that the process has ended.
    if (process.ending !== null || description.pidfd === null) throw ended();
    description.pidfd.signal(number);
  }

  #groupPidfd({ process, description }: Pick<Handle, 'process' | 'description'>): Pidfd | null {
    return description.pidfd ?? this.#table.groups.get(process) ?? null;
  }

  #toGroup(handle: Handle, number: number): void {
    const pidfd = this.#groupPidfd(handle);
    if (pidfd === null) throw ended();
    if (!this.#features.groupSignal)
      throw new Problem('EOPNOTSUPP', `Signals to a process group need Linux ${since.groupSignal}: use scope process.`);
    if (readStat(globalThis.process.pid)?.group === handle.process.pid) throw itself();
    try {
      pidfd.signal(number, 'group');
    } catch (error) {
      if (!isErrno(error, 'ESRCH') || handle.process.ending !== null) throw error;
      throw new Problem('EINVAL', 'This process leads no process group: use scope process or tree.');
    }
  }

  async #toTree(handle: Handle, number: number): Promise<void> {
    const { description } = handle;
    const root = (): TreeRoot => this.#rootOf(handle);
    if (pidsOf(root()).includes(globalThis.process.pid)) throw itself();
    // Retained meanwhile: if the handle were closed, the pid could become another process's.
    description.retain();
    try {
      let killed = 0;
      if (number === SIGKILL) {
        this.killing(handle.process);
        killed = this.#cgroups.pids(description.id).length;
        this.#cgroups.kill(description.id);
      }
      const { count, refused, isComplete } = await signalTree(root, number);
      if (refused.length > 0) throw notPermitted(refused, handle);
      if (!isComplete && number === SIGKILL) throw stillGrows(handle);
      if (count === 0 && killed === 0) throw ended();
    } catch (error) {
      throw explain(error, handle);
    } finally {
      this.#table.release(description);
    }
  }

  #rootOf({ process, description }: Handle): TreeRoot {
    const others = this.#cgroups.pids(description.id);
    // A zombie still has its pid, and its session.
    if (description.pidfd?.pid !== process.pid)
      return { pid: null, session: this.#table.groups.session(process), others };
    const { pid } = process;
    return { pid, session: readStat(pid)?.session === pid ? pid : null, others };
  }
}

/** Returns whether a signal failed because its target has ended. */
export function meansEnded(error: unknown): boolean {
  return error instanceof Problem && error.errno === 'ESRCH';
}

function numberOf(signal: string | number, { id }: Handle): number {
  const number = signalNumber(signal);
  if (number === undefined)
    throw new Problem(
      'EINVAL',
      `${signal} is not a signal of Linux: send a name such as SIGTERM, or a number from 1 to 64.`,
      { handle: id },
    );
  return number;
}

function ended(): Problem {
  return new Problem('ESRCH', 'The process has ended, so no process is left to signal.', {
    syscall: 'pidfd_send_signal',
  });
}

function itself(): Problem {
  return new Problem(
    'EPERM',
    'This signal would reach the daemon, which does not signal itself: signal the others one by one.',
  );
}

function explain(error: unknown, handle: Handle): unknown {
  const { id } = handle;
  const syscall = 'pidfd_send_signal';
  if (error instanceof Problem) return new Problem(error.errno, error.message, { ...error.facts, handle: id });
  if (isErrno(error, 'ESRCH')) return new Problem('ESRCH', ended().message, { syscall, handle: id });
  if (isErrno(error, 'EPERM')) return notPermitted([handle.process.pid], handle);
  return error;
}
