import { type FSWatcher, realpathSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { readRegular } from '../files/read-regular.ts';
import { inotifyShortage } from '../kernel/inotify-shortage.ts';
import { Listeners } from '../model/listeners.ts';
import type { Policy } from './policy.ts';
import { readPolicy } from './policy-file.ts';

/** The delay after a change. An editor, or a rename of a new version into place, causes several changes. */
const DEBOUNCE_MS = 100;

/** The interval of polling while no inotify watch is available. */
const POLL_MS = 2000;

/** Reloads a policy when its file is written or replaced, or when a symbolic link in its path changes (as in a ConfigMap). */
export class PolicyWatch {
  readonly #path: string;
  readonly #apply: (policy: Policy) => void;
  readonly #applied = new Listeners<[policy: Policy]>();
  readonly #refused = new Listeners<[error: Error]>();
  readonly #unwatchable = new Listeners<[reason: string]>();
  /** Whether the file's current version is refused, so that an older version is in force. */
  stale = false;
  /** The reason for polling, or `null` while inotify reports changes. */
  unwatched: string | null = null;
  #poll: NodeJS.Timeout | null = null;
  #watchers: FSWatcher[] = [];
  #text: string | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(path: string, apply: (policy: Policy) => void) {
    this.#path = path;
    this.#apply = apply;
    this.#watch();
  }

  /**
   * Reads the policy for the first time.
   * @throws {PolicyError} and {Error}, as {@link readPolicy} does
   */
  read(): Policy {
    this.#text = textOf(this.#path);
    return readPolicy(this.#path);
  }

  /** Subscribes to versions that are now in force. @returns a function that ends the subscription */
  onRead(listener: (policy: Policy) => void): () => void {
    return this.#applied.on(listener);
  }

  /** Subscribes to refused versions, after which the previous one stays in force. @returns a function that ends the subscription */
  onRefused(listener: (error: Error) => void): () => void {
    return this.#refused.on(listener);
  }

  /** Subscribes to the start of polling, with its reason. @returns a function that ends the subscription */
  onUnwatched(listener: (reason: string) => void): () => void {
    return this.#unwatchable.on(listener);
  }

  /** Watches the directories: an inotify watch on the file itself would stay on the old file after a rename. */
  #watch(): void {
    this.close();
    let shortage: string | null = null;
    const directories = new Set([dirname(this.#path)]);
    try {
      directories.add(dirname(realpathSync(this.#path)));
    } catch {
      // The file does not exist now. The watch on the first directory reports when it does.
    }
    for (const directory of directories) {
      try {
        const watcher = watch(directory, { persistent: false }, () => {
          this.#timer ??= setTimeout(() => this.#reload(), DEBOUNCE_MS).unref();
        });
        watcher.on('error', (error) => this.#refuse(error));
        this.#watchers.push(watcher);
      } catch (error) {
        shortage = inotifyShortage(error);
        if (shortage === null) this.#refuse(error as Error);
      }
    }
    if (shortage !== null) this.#poll = setInterval(() => this.#reload(), POLL_MS).unref();
    const begins = shortage !== null && this.unwatched === null;
    this.unwatched = shortage;
    if (begins) this.#unwatchable.emit(shortage!);
  }

  #refuse(error: Error): void {
    this.stale = true;
    this.#refused.emit(error);
  }

  #reload(): void {
    this.#timer = null;
    this.#watch();
    const text = textOf(this.#path);
    if (text === this.#text) return;
    this.#text = text;
    try {
      const policy = readPolicy(this.#path);
      this.#apply(policy);
      this.stale = false;
      this.#applied.emit(policy);
    } catch (error) {
      this.#refuse(error as Error);
    }
  }

  /** Stops watching and polling. */
  close(): void {
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers = [];
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#poll !== null) clearInterval(this.#poll);
    this.#poll = null;
  }
}

function textOf(path: string): string | null {
  try {
    return readRegular(path);
  } catch {
    return null;
  }
}
