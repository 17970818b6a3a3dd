import { type FSWatcher, realpathSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { readRegular } from '../files/read-regular.ts';
import { inotifyShortage } from '../kernel/inotify-shortage.ts';
import { Listeners } from '../model/listeners.ts';
import type { Policy } from './policy.ts';
import { readPolicy } from './policy-file.ts';

/** An editor, or whoever renames a new version into place, does it in several steps. */
const SETTLE_MS = 100;

/** How often the file is read where the kernel cannot tell of changes. */
const POLL_MS = 2000;

/** Reads a policy again whenever its file changes, be it written, replaced, or a symbolic link that is turned (as in a ConfigMap). */
export class PolicyWatch {
  readonly #path: string;
  readonly #apply: (policy: Policy) => void;
  readonly #applied = new Listeners<[policy: Policy]>();
  readonly #refused = new Listeners<[error: Error]>();
  readonly #unwatchable = new Listeners<[reason: string]>();
  /** Whether what the file says now is not what holds. */
  stale = false;
  /** Why changes are only looked for from time to time; `null` where the kernel tells of them. */
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
   * Reads it for the first time; what changes from now on is told.
   * @throws {PolicyError} and {Error}, as `readPolicy` does
   */
  read(): Policy {
    this.#text = textOf(this.#path);
    return readPolicy(this.#path);
  }

  /** Subscribes to versions that have been applied. @returns a function that ends the subscription */
  onRead(listener: (policy: Policy) => void): () => void {
    return this.#applied.on(listener);
  }

  /** Subscribes to versions that are refused; the one before stays in force. @returns a function that ends the subscription */
  onRefused(listener: (error: Error) => void): () => void {
    return this.#refused.on(listener);
  }

  /** Subscribes to the moment from which the file is polled. @returns a function that ends the subscription */
  onUnwatched(listener: (reason: string) => void): () => void {
    return this.#unwatchable.on(listener);
  }

  /** The directories, since what is watched by name alone is lost when another file takes its name. */
  #watch(): void {
    this.close();
    let shortage: string | null = null;
    const directories = new Set([dirname(this.#path)]);
    try {
      directories.add(dirname(realpathSync(this.#path)));
    } catch {
      // Not there now: the first directory tells when it is.
    }
    for (const directory of directories) {
      try {
        const watcher = watch(directory, { persistent: false }, () => {
          this.#timer ??= setTimeout(() => this.#look(), SETTLE_MS).unref();
        });
        watcher.on('error', (error) => this.#refuse(error));
        this.#watchers.push(watcher);
      } catch (error) {
        shortage = inotifyShortage(error);
        if (shortage === null) this.#refuse(error as Error);
      }
    }
    if (shortage !== null) this.#poll = setInterval(() => this.#look(), POLL_MS).unref();
    const begins = shortage !== null && this.unwatched === null;
    this.unwatched = shortage;
    if (begins) this.#unwatchable.emit(shortage!);
  }

  #refuse(error: Error): void {
    this.stale = true;
    this.#refused.emit(error);
  }

  #look(): void {
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
