import { closeSync } from 'node:fs';
import type { Logger } from 'pino';
import { build } from './app.ts';
import { type Config, speaksTls } from './config/config.ts';
import { type Daemon, startDaemon, stopping } from './daemon.ts';
import type { Why } from './feed/feed.ts';
import type { App } from './http/app-type.ts';
import { type HandedOn, type Listeners, nameOf } from './http/listeners.ts';
import { checkRoom } from './journal/database.ts';
import { takePassed } from './kernel/notify.ts';
import { stopChildren } from './signals/stop-children.ts';
import { check } from './upgrade/check.ts';
import { onHangup } from './upgrade/early-hangup.ts';
import { execute, type Handoff, takeHandoff } from './upgrade/handoff.ts';
import { version } from './version.ts';

/** How long answers may take to leave when the daemon stops or is replaced. */
const DRAIN_MS = 2000;

/** The same after a fault: who knows whether they ever leave. */
const FAULT_DRAIN_MS = 500;

/** How often a daemon that fails may go on in a new image. */
const MOST_FAILURES = 5;
const FAILURES_WITHIN_MS = 60_000;

/** The running daemon: from the first listening socket to its end, or to its next image. */
export class Service {
  readonly addresses: string[] = [];
  readonly #daemon: Daemon;
  readonly #app: App;
  readonly #listeners: Listeners;
  readonly #logger: Logger;
  #failures: number[];
  #handedOn: HandedOn[] | null = null;
  #ending: 'stop' | 'upgrade' | 'fault' | null = null;
  #checking = false;

  private constructor(daemon: Daemon, app: App, listeners: Listeners, logger: Logger, failures: number[]) {
    this.#daemon = daemon;
    this.#app = app;
    this.#listeners = listeners;
    this.#logger = logger;
    this.#failures = failures;
  }

  /**
   * @param audit `null` where nothing is audited
   * @throws {Error} in one sentence
   */
  static async start(config: Config, logger: Logger, audit: Logger | null): Promise<Service> {
    const handoff = takeHandoff();
    const daemon = startDaemon(config, handoff, takePassed());
    const { app, listeners } = await build(daemon, logger, audit);
    const service = new Service(daemon, app, listeners, logger, handoff?.failures ?? []);
    await service.#serve(config, handoff);
    return service;
  }

  async #serve(config: Config, handoff: Handoff | null): Promise<void> {
    const { journal } = this.#daemon;
    const damaged = (err: Error, setAside: string): void =>
      this.#logger.error({ err, setAside }, 'the journal was damaged, and a new one is begun: what it held is lost');
    const found = journal.takeDamage();
    if (found !== null) damaged(...found);
    journal.onDamaged = damaged;
    const { policy } = this.#daemon;
    if (policy !== null) {
      policy.onRead = ({ clients }) => this.#logger.info({ clients: clients.size }, 'there is another policy');
      policy.onRefused = ({ message }) =>
        this.#logger.error({ reason: message }, 'the policy is refused, and the one before still holds');
    }

    for (const address of config.listen) {
      const inherited = handoff?.listeners.find((listener) => listener.address === nameOf(address));
      const served = await this.#listeners.listen(address, inherited?.fd);
      this.addresses.push(served);
      this.#logger.info({ address: served, ...(speaksTls(config, address) && { tls: true }) }, 'listening');
    }
    for (const { address, fd } of handoff?.listeners ?? [])
      if (!config.listen.some((wanted) => nameOf(wanted) === address)) closeSync(fd); // not served any more
    process.on('SIGTERM', (signal) => void this.stop(signal));
    process.on('SIGINT', (signal) => void this.stop(signal));
    process.on('uncaughtException', (error) => void this.fail(error));
    // At a terminal it means that the terminal is gone.
    onHangup(() => void (process.stdout.isTTY ? this.stop('SIGHUP') : this.upgrade()));
    const { node, head } = journal;
    this.#logger.info({ version, pid: process.pid, node, head, upgraded: handoff !== null }, 'ready');
  }

  /** Stops; asked twice, at once. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.#ending === 'stop') process.exit(1);
    this.#ending = 'stop';
    this.#logger.info({ signal }, 'stopping');
    const { config } = this.#daemon;
    if (config.stopChildrenMs !== null) {
      this.#daemon.handles.refuseNew(stopping);
      await this.#daemon.handles.begun();
      const count = await stopChildren(this.#daemon, config.stopChildrenMs);
      this.#logger.info({ count }, 'what was spawned has ended');
    }
    this.#listeners.stop();
    await this.#quiet('stopping', DRAIN_MS);
    await this.#daemon.handles.begun();
    this.#daemon.close();
    this.#logger.info('stopped');
    process.exit(0);
  }

  /** Goes on as what the command now is, if that would start. */
  async upgrade(): Promise<void> {
    if (this.#checking || this.#ending !== null) return;
    this.#checking = true;
    const refused = await this.#refusal();
    this.#checking = false;
    if (this.#ending !== null) return;
    if (refused !== null) {
      this.#logger.error({ reason: refused }, 'the upgrade is refused, and all stays as it is');
      return;
    }
    this.#ending = 'upgrade';
    this.#logger.info('upgrading in place');
    await this.#replace(DRAIN_MS);
  }

  async #refusal(): Promise<string | null> {
    const { reaper } = this.#daemon;
    try {
      return await check((pid) => reaper.ownChildEnded(pid));
    } catch (error) {
      return String(error);
    }
  }

  /** An exception that nobody caught: whatever is broken in here, the processes are not, and a new image takes them over. */
  async fail(err: Error): Promise<void> {
    this.#logger.fatal({ err }, 'a fault of ours');
    const now = Date.now();
    this.#failures = [...this.#failures.filter((at) => at > now - FAILURES_WITHIN_MS), now];
    if (this.#failures.length > MOST_FAILURES || this.#ending === 'stop') process.exit(1);
    if (!this.#couldStart()) {
      this.#logger.fatal('no new image could write the journal either, so this one goes on as far as it can');
      return;
    }
    const again = this.#ending !== null;
    this.#ending = 'fault';
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
    this.#handedOn ??= this.#listeners.handOn();
    if (graceMs > 0) await this.#quiet('restarting', graceMs);
    await this.#daemon.handles.begun();
    if (this.#ending === 'stop') return;
    try {
      execute({ ...this.#daemon.handOver(), listeners: this.#handedOn, failures: this.#failures });
    } catch (err) {
      this.#logger.fatal({ err }, 'the next image could not be begun');
      process.exit(1);
    }
  }

  /** Answers everybody and lets their connections end. */
  async #quiet(why: Why, graceMs: number): Promise<void> {
    this.#daemon.drain(why);
    await this.#listeners.drain();
    void this.#app.close();
    await this.#listeners.close(graceMs);
  }
}
