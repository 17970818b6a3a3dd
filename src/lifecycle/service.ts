import { isatty } from 'node:tty';
import type { Logger } from 'pino';
import { build } from '../app.ts';
import type { Config } from '../config/config.ts';
import { type Daemon, startDaemon } from '../daemon.ts';
import { restarting, stopping } from '../errors/shutdown.ts';
import type { Why } from '../feed/feed.ts';
import type { App } from '../http/app-type.ts';
import type { BoundEndpoint, InheritedSocket } from '../http/listen-addresses.ts';
import type { Listeners } from '../http/listeners.ts';
import { checkRoom } from '../journal/database.ts';
import type { Notice } from '../journal/notices.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { Notifier, takePassed } from '../kernel/notify.ts';
import { terminateChildren } from '../signals/terminate-children.ts';
import { version } from '../version.ts';
import { forwarded, onSignal } from './early-signals.ts';
import { execute, type Handoff, takeHandoff } from './handoff.ts';
import { MainProgram } from './main-program.ts';
import { prepare } from './preparation.ts';
import { rehearseUpgrade } from './rehearsal.ts';
import { ServiceManager } from './service-manager.ts';
import { next, type ServiceEvent, type State } from './service-states.ts';

/** The time that answers get to be sent when the daemon stops or is replaced. */
const DRAIN_MS = 2000;

/** The same after an uncaught exception, when some answers may never be sent. */
const FAULT_DRAIN_MS = 500;

/** The time limit for writing the content of pipes to disk when the daemon stops. */
const FLUSH_MS = 2000;

/** The number of failures within FAILURES_WITHIN_MS after which the daemon exits instead of starting a new image. */
const MOST_FAILURES = 5;
const FAILURES_WITHIN_MS = 60_000;

const notices = {
  damaged: 'the journal was damaged and is replaced by a new one: its records are lost',
  restored:
    'the state directory was restored from a backup or copied: readers of events get a gap, and seqs continue far ahead',
};

interface ServiceParts {
  daemon: Daemon;
  app: App;
  listeners: Listeners;
  logger: Logger;
  manager: ServiceManager;
  /** The times of recent failures, in milliseconds on CLOCK_BOOTTIME. */
  failures: number[];
}

/** Returns the status line for the service manager. */
function statusOf({ handles, table, feed }: Daemon): string {
  return `${handles.size} live handles on ${table.size} processes, ${feed.size} subscribers`;
}

/** The running daemon, from its first listening socket to its end or its next image. */
export class Service {
  readonly addresses: string[] = [];
  readonly #daemon: Daemon;
  readonly #app: App;
  readonly #listeners: Listeners;
  readonly #logger: Logger;
  readonly #manager: ServiceManager;
  #failures: number[];
  #main: MainProgram | null = null;
  #handedSockets: InheritedSocket[] | null = null;
  #state: State = 'serving';

  private constructor({ daemon, app, listeners, logger, manager, failures }: ServiceParts) {
    this.#daemon = daemon;
    this.#app = app;
    this.#listeners = listeners;
    this.#logger = logger;
    this.#manager = manager;
    this.#failures = failures;
  }

  /**
   * Starts the daemon.
   * @param audit opens the audit log; it returns `null` if the audit is off
   * @throws {Error} with one sentence; removes everything that the start has created
   */
  static async start(config: Config, logger: Logger, audit: () => Logger | null): Promise<Service> {
    const handoff = takeHandoff();
    const passed = takePassed();
    const notifier = Notifier.fromEnvironment();
    const { made, endpoints, ...taken } = await prepare(config, { handoff, passed });
    let daemon: Daemon | null = null;
    try {
      daemon = startDaemon(config, { handoff, passed, notifier, ...taken });
      const parts = daemon;
      const manager = new ServiceManager(notifier, () => statusOf(parts));
      daemon.handles.onCount(() => manager.changed());
      daemon.feed.onCount(() => manager.changed());
      const { app, listeners } = await build(daemon, logger, audit());
      const failures = handoff?.failures ?? [];
      const service = new Service({ daemon, app, listeners, logger, manager, failures });
      await service.#serve(config, handoff, endpoints);
      return service;
    } catch (error) {
      daemon?.close();
      made.dispose();
      throw error;
    }
  }

  async #serve(config: Config, handoff: Handoff | null, endpoints: readonly BoundEndpoint[]): Promise<void> {
    const { journal } = this.#daemon;
    const tell = ({ what, ...facts }: Notice): void => this.#logger.error(facts, notices[what]);
    journal.onNotice(tell);
    const { policy } = this.#daemon;
    if (policy !== null) {
      const unwatched = (reason: string): void => this.#logger.warn({ reason }, 'the policy is polled for changes');
      if (policy.unwatched !== null) unwatched(policy.unwatched);
      policy.onUnwatched(unwatched);
      policy.onRead(({ clients }) => this.#logger.info({ clients: clients.size }, 'policy reloaded'));
      policy.onRefused(({ message }) =>
        this.#logger.error({ reason: message }, 'policy refused; the previous version stays in force'),
      );
    }

    for (const endpoint of endpoints) {
      const { address, tls } = await this.#listeners.listen(endpoint);
      this.addresses.push(address);
      this.#logger.info({ address, ...(tls && { tls }) }, 'listening');
    }
    process.on('uncaughtException', (error) => void this.fail(error));
    if (config.main === null) {
      onSignal('SIGTERM', (signal) => void this.stop(signal));
      onSignal('SIGINT', (signal) => void this.stop(signal));
      // At a terminal SIGHUP means that the terminal was closed.
      onSignal('SIGHUP', () => void (isatty(1) ? this.stop('SIGHUP') : this.upgrade()));
      onSignal('SIGUSR1', () => this.#logger.warn('SIGUSR1 ignored: the inspector is disabled'));
    } else await this.#run(config.main, handoff?.main ?? null);
    const { node, head } = journal;
    this.#logger.info({ version, node, head, upgraded: handoff !== null }, 'ready');
    this.#manager.ready();
  }

  /**
   * Acts as the init of one program: forwards signals to it, and stops when it ends.
   * @param running the program's handle, if the previous image started it
   * @throws {NotStarted} if the program cannot be started
   */
  async #run(command: NonNullable<Config['main']>, running: string | null): Promise<void> {
    const main =
      running === null ? await MainProgram.start(this.#daemon, command) : MainProgram.resume(this.#daemon, running);
    this.#main = main;
    // An init must have no children except its program and adopted orphans.
    this.#daemon.forkServer.retire();
    for (const signal of forwarded) onSignal(signal, () => main.signal(signal));
    main.ended().then(
      (code) => (this.#transition('main ended') ? this.#end({ program: command[0], code }, code) : undefined),
      () => {}, // the daemon is replaced, and the next image waits for the program
    );
  }

  /**
   * Handles an event of the state table.
   * @returns whether the state has changed
   */
  #transition(event: ServiceEvent): boolean {
    const state = next(this.#state, event);
    if (state === 'exit') process.exit(1);
    if (state === null) return false;
    this.#state = state;
    return true;
  }

  /** Stops the daemon. A second call exits at once. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.#transition('stop')) await this.#end({ signal }, 0);
  }

  async #end(why: object, exitCode: number): Promise<void> {
    this.#logger.info(why, 'stopping');
    const { config } = this.#daemon;
    this.#manager.stopping(config.stopChildrenMs);
    await this.#daemon.handles.drainSpawns(stopping);
    if (config.stopChildrenMs !== null) {
      const { count, left } = await terminateChildren(this.#daemon, config.stopChildrenMs);
      if (left.length === 0) this.#logger.info({ count }, 'all spawned processes have ended');
      else this.#logger.warn({ count, left }, 'some spawned processes have not ended');
    }
    this.#listeners.stop();
    await this.#drain('stopping', DRAIN_MS);
    // Stores the last output of ended programs. The keeper holds the pipes of the others.
    await this.#daemon.outputs.flushAll(FLUSH_MS);
    this.#daemon.close();
    this.#logger.info('stopped');
    process.exit(exitCode);
  }

  /** Replaces this image with the current version of its command, if a rehearsal shows that it would start. */
  async upgrade(): Promise<void> {
    if (!this.#transition('upgrade')) return;
    this.#manager.reloading();
    const refused = await this.#refusal();
    if (!this.#transition(refused === null ? 'accepted' : 'refused')) return;
    if (refused !== null) {
      this.#logger.error({ reason: refused }, 'upgrade refused; this image keeps running');
      this.#manager.refused(refused);
      return;
    }
    this.#logger.info('upgrading in place');
    await this.#replace(DRAIN_MS);
  }

  async #refusal(): Promise<string | null> {
    try {
      return await rehearseUpgrade(this.#daemon.reaper, this.#daemon.forkServer, this.#listeners.served);
    } catch (error) {
      return String(error);
    }
  }

  /** Handles an uncaught exception: a new image takes over the processes, which are not affected. */
  async fail(err: Error): Promise<void> {
    this.#logger.fatal({ err }, 'internal error');
    const now = boottimeMs();
    this.#failures = [...this.#failures.filter((at) => at > now - FAILURES_WITHIN_MS && at <= now), now];
    if (this.#failures.length > MOST_FAILURES || next(this.#state, 'fault') === 'exit') process.exit(1);
    if (!this.#couldStart()) {
      this.#logger.fatal('a new image could not write the journal either; this image keeps running');
      return;
    }
    // Connections that were drained for an upgrade or after another exception need no second wait.
    const again = this.#state === 'upgrading' || this.#state === 'failing';
    this.#transition('fault');
    await this.#replace(again ? 0 : FAULT_DRAIN_MS);
  }

  #couldStart(): boolean {
    if (this.#daemon.journal.fault === null) return true;
    try {
      checkRoom(this.#daemon.config.stateDir);
      return true;
    } catch {
      return false;
    }
  }

  async #replace(graceMs: number): Promise<void> {
    // The daemon still serves other requests during this wait.
    await this.#daemon.handles.drainSpawns(restarting);
    this.#handedSockets ??= this.#listeners.handOver();
    if (graceMs > 0) await this.#drain('restarting', graceMs);
    if (this.#state === 'stopping') return;
    try {
      const main = this.#main?.id ?? null;
      execute({ ...this.#daemon.handOver(), listeners: this.#handedSockets, main, failures: this.#failures });
    } catch (err) {
      this.#logger.fatal({ err }, 'execve of the next image failed');
      process.exit(1);
    }
  }

  /** Answers all waiting requests, and closes the connections. */
  async #drain(why: Why, graceMs: number): Promise<void> {
    this.#daemon.drain(why);
    await this.#listeners.drain();
    void this.#app.close();
    await this.#listeners.close(graceMs);
  }
}
