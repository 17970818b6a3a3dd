import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { isErrno } from '../kernel/errno.ts';
import { isDying } from '../kernel/proc.ts';

/** The record of the OOM kills in one cgroup. */
interface Account {
  /** The journal's number of the open description that owns the cgroup. */
  id: number;
  pid: number;
  file: string;
  /** The number of kills that hit other processes. */
  others: number;
  /** Whether a client sent the process a SIGKILL while it was alive. */
  isKilled: boolean;
  watcher: FSWatcher | null;
  /** The timer of the check that follows an increase of the counter. */
  check: NodeJS.Timeout | null;
}

/** The delay of a check. The kernel counts a kill before it sends the signal, and a busy machine needs time between the two. */
const CHECK_AFTER_MS = 50;

/**
 * Determines whether the OOM killer killed a process. The kernel counts the kills of a cgroup (`oom_kill` in memory.events,
 * admin-guide/cgroup-v2.rst), but neither the counter nor the wait status says which process was killed. So each increase is followed
 * by a check: if the process has no SIGKILL pending and is not exiting, the kill hit another process. An end by SIGKILL with a kill
 * that hit no other process is an OOM kill, unless a client sent a SIGKILL before.
 *
 * Two cases cannot be decided. A SIGKILL from outside the daemon looks like an OOM kill shortly (about 60 ms) after an OOM kill of
 * another process in the cgroup. And kills while no daemon runs are not checked.
 */
export class OomKills {
  readonly #byPid = new Map<number, Account>();
  readonly #byId = new Map<number, Account>();

  /**
   * Starts to follow a process.
   * @param id the journal's number of the open description
   * @param file the path of the cgroup's memory.events
   */
  follow(id: number, pid: number, file: string): void {
    const account: Account = { id, pid, file, others: 0, isKilled: false, watcher: null, check: null };
    this.#byPid.set(pid, account);
    this.#byId.set(id, account);
    try {
      account.watcher = watch(file, { persistent: false }, () => this.#scheduleCheck(account));
      account.watcher.on('error', () => {});
    } catch (error) {
      // Without the memory controller the file does not exist. Without an inotify watch the counter is read when the process is killed
      // or ends.
      if (!isErrno(error, 'ENOENT', 'ENOSPC', 'EMFILE', 'ENFILE', 'ENODEV')) throw error;
    }
    attribute(account);
  }

  /** Notes that a client is about to send the process a SIGKILL. */
  killing(pid: number): void {
    const account = this.#byPid.get(pid);
    if (account === undefined) return;
    attribute(account);
    account.isKilled ||= !isDying(pid);
  }

  /** Reports whether the OOM killer killed a process that has ended by SIGKILL. */
  hasKilled(pid: number): boolean {
    const account = this.#byPid.get(pid);
    return account !== undefined && !account.isKilled && killsIn(account.file) > account.others;
  }

  /** Stops following the process of a description. */
  forget(id: number): void {
    const account = this.#byId.get(id);
    if (account !== undefined) this.#drop(account);
  }

  stop(): void {
    for (const account of this.#byId.values()) this.#drop(account);
  }

  #scheduleCheck(account: Account): void {
    if (account.check !== null) return;
    const kills = killsIn(account.file);
    if (kills <= account.others) return;
    account.check = setTimeout(() => {
      account.check = null;
      attribute(account, kills);
      this.#scheduleCheck(account); // the counter may have increased since
    }, CHECK_AFTER_MS).unref();
  }

  #drop(account: Account): void {
    account.watcher?.close();
    if (account.check !== null) clearTimeout(account.check);
    this.#byId.delete(account.id);
    if (this.#byPid.get(account.pid) === account) this.#byPid.delete(account.pid);
  }
}

/** Attributes the kills to other processes if the process is not dying. */
function attribute(account: Account, kills = killsIn(account.file)): void {
  if (kills > account.others && !isDying(account.pid)) account.others = kills;
}

function killsIn(file: string): number {
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? 0);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return 0;
    throw error;
  }
}
