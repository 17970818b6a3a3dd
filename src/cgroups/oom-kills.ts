import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { isErrno } from '../kernel/errno.ts';
import { isDying } from '../kernel/proc.ts';

/** What is known of the OOM kills in one cgroup. */
interface Account {
  /** The journal's number of the description that the cgroup was made for. */
  id: number;
  pid: number;
  file: string;
  /** How many of its kills were of other processes. */
  others: number;
  /** A client has killed the process before the kernel could. */
  isKilled: boolean;
  watcher: FSWatcher | null;
  /** Of the look that follows a rise of the counter. */
  look: NodeJS.Timeout | null;
}

/** The kernel counts a kill, and sends the signal then: so long it has for that, on a busy machine. */
const LOOK_AFTER_MS = 50;

/**
 * Tells whether it was the OOM killer that killed a process. The kernel counts the kills of a cgroup (`oom_kill` in memory.events,
 * admin-guide/cgroup-v2.rst), but neither the counter nor the wait status says which process was killed. So after each rise of the
 * counter this looks whether the process has a SIGKILL pending or is exiting. If not, the kill was of another process. An end by SIGKILL
 * with a kill that is not another's is one by the OOM killer, unless a client had sent a SIGKILL before.
 *
 * What cannot be known: whether a SIGKILL from outside the daemon was the OOM killer's, if that killed another process of the cgroup less
 * than about 60 ms before; and what happened while no daemon ran.
 */
export class OomKills {
  readonly #byPid = new Map<number, Account>();
  readonly #byId = new Map<number, Account>();

  /** @param file memory.events of the cgroup */
  follow(id: number, pid: number, file: string): void {
    const account: Account = { id, pid, file, others: 0, isKilled: false, watcher: null, look: null };
    this.#byPid.set(pid, account);
    this.#byId.set(id, account);
    try {
      account.watcher = watch(file, { persistent: false }, () => this.#lookLater(account));
      account.watcher.on('error', () => {});
    } catch (error) {
      // Without a controller there is no such file; without an inotify watch it is looked at when the process is killed or ends.
      if (!isErrno(error, 'ENOENT', 'ENOSPC', 'EMFILE', 'ENFILE', 'ENODEV')) throw error;
    }
    attribute(account);
  }

  /** A client is about to kill the process. */
  killing(pid: number): void {
    const account = this.#byPid.get(pid);
    if (account === undefined) return;
    attribute(account);
    account.isKilled ||= !isDying(pid);
  }

  /** Whether a process that has ended by SIGKILL was killed by the OOM killer. */
  hasKilled(pid: number): boolean {
    const account = this.#byPid.get(pid);
    return account !== undefined && !account.isKilled && killsIn(account.file) > account.others;
  }

  forget(id: number): void {
    const account = this.#byId.get(id);
    if (account !== undefined) this.#drop(account);
  }

  stop(): void {
    for (const account of this.#byId.values()) this.#drop(account);
  }

  #lookLater(account: Account): void {
    if (account.look !== null) return;
    const kills = killsIn(account.file);
    if (kills <= account.others) return;
    account.look = setTimeout(() => {
      account.look = null;
      attribute(account, kills);
      this.#lookLater(account); // for what was counted meanwhile
    }, LOOK_AFTER_MS).unref();
  }

  #drop(account: Account): void {
    account.watcher?.close();
    if (account.look !== null) clearTimeout(account.look);
    this.#byId.delete(account.id);
    if (this.#byPid.get(account.pid) === account) this.#byPid.delete(account.pid);
  }
}

/** Kills that are counted while the process is not dying were of others. */
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
