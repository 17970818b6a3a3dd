import { constants as fs, openSync } from 'node:fs';
import type { Cgroups } from '../cgroups/cgroups.ts';
import { type Client, notAllowed } from '../clients/client.ts';
import type { Problem } from '../errors/problem.ts';
import type { Inputs } from '../input/inputs.ts';
import { Batch, type EventSink } from '../journal/batch.ts';
import type { Journal } from '../journal/journal.ts';
import { boottimeMs } from '../kernel/clock.ts';
import { Descriptor } from '../kernel/descriptor.ts';
import type { Features } from '../kernel/features.ts';
import { readStat } from '../kernel/proc.ts';
import type { Lifetime } from '../model/lifetime.ts';
import { Listeners } from '../model/listeners.ts';
import { Handle, type InputKind, OpenDescription, Process, type Stream } from '../model/process.ts';
import type { Outputs } from '../output/outputs.ts';
import type { ProcessTable } from '../processes/process-table.ts';
import type { Reaper } from '../processes/reaper.ts';
import type { ForkServer } from '../spawn/fork-server.ts';
import { type Launched, launch } from '../spawn/launch.ts';
import { explain } from '../spawn/launch-problems.ts';
import { type LaunchRequest, shownOf } from '../spawn/launch-request.ts';
import type { Terminals } from '../terminals/terminals.ts';
import type { Admission } from './admission.ts';
import type { DescriptorPressure } from './descriptor-pressure.ts';
import type { HandleTable } from './handle-table.ts';
import { descriptorFlag, type OpenOptions } from './open-options.ts';
import { permitted } from './permit-spawn.ts';
import { unwritable } from './refusals.ts';

/** How long spawns under way may take to finish when the daemon stops, in milliseconds. After that they are abandoned. */
const DRAIN_MS = 1000;

export interface SpawnerParts {
  journal: Journal;
  table: ProcessTable;
  handles: HandleTable;
  admission: Admission;
  pressure: DescriptorPressure;
  reaper: Reaper;
  feed: EventSink;
  features: Features;
  /** The pidfds of handles get lower numbers than this. */
  descriptors: number;
  outputs: Outputs;
  inputs: Inputs;
  terminals: Terminals;
  cgroups: Cgroups;
  forkServer: ForkServer;
  launch?: typeof launch;
}

/** A spawn under way, with what its steps have made so far. */
interface Spawn extends OpenOptions {
  client: string;
  /** The id of its handle. */
  id: string;
  /** The journal's number for the process and its description. */
  number: number;
  request: LaunchRequest;
  streams: readonly Stream[];
  /** The quotas and the name that it holds until the handle and its output have them. */
  reserved: readonly Disposable[];
  launched: Launched | null;
  /** Ends the reservation of its pid. */
  release: (() => void) | null;
  /** The handle as the journal knows it before the program runs. */
  intent: Handle | null;
  done: PromiseWithResolvers<void>;
}

/**
 * Starts programs and holds them. A spawn takes these steps, in this order; if one fails, all before it are undone.
 *
 * | step    | what it does                                                        | what undoes it                |
 * | ------- | ------------------------------------------------------------------- | ----------------------------- |
 * | admit   | checks the right to spawn; reserves quotas and the name; takes from the rate | the quotas are released       |
 * | permit  | resolves the request against the policy                             |                               |
 * | prepare | makes the cgroup                                                    | the cgroup is removed         |
 * | fork    | makes the pipes and the process, which waits; reserves its pid      | it is killed, and discarded   |
 * | write   | writes the handle as intended, with the idempotency key             | the intent is withdrawn       |
 * | release | lets the process execute its program                                |                               |
 * | hold    | places the handle in the tables; writes and sends `opened`          |                               |
 * | attach  | hands the process to the reaper and to the watches; cannot fail     |                               |
 *
 * So a daemon that dies in between leaves either no process, or one that the next daemon finds by its pid and inode. A request that
 * is sent again with its key starts no second process.
 */
export class Spawner {
  readonly #parts: SpawnerParts;
  readonly #launch: typeof launch;
  readonly #underWay = new Set<Spawn>();
  /** A descriptor of /dev/null, for streams that are not captured. */
  readonly #nothing = new Descriptor(openSync('/dev/null', fs.O_RDWR));
  readonly #begun = new Listeners<[pid: number]>();

  constructor(parts: SpawnerParts) {
    this.#parts = parts;
    this.#launch = parts.launch ?? launch;
  }

  /** Subscribes to spawned processes that execute their program now. @returns a function that ends the subscription */
  onBegun(listener: (pid: number) => void): () => void {
    return this.#begun.on(listener);
  }

  /**
   * Starts a program.
   * @throws {Problem} of {@link launch}; EPERM, EDQUOT; ENOSPC if the journal cannot be written; EMFILE
   */
  async spawn(client: Client, wanted: LaunchRequest, options: OpenOptions): Promise<Handle> {
    const { journal, admission, outputs, terminals, handles } = this.#parts;
    if (client.rights.spawn === false) throw notAllowed('spawn');
    using handleQuota = admission.reserve('posix_spawn', client);
    using outputQuota = outputs.reserve(client, captured(wanted).length);
    using terminalQuota = wanted.tty === undefined ? null : terminals.reserve(client);
    const id = handles.makeId(client.name);
    using name = handles.names.reserve(client.name, options.name, id);
    client.spawns.take(client.quotas.spawnsPerSecond);
    const request = await permitted(client.rights.spawn, wanted);
    admission.requireOpen(); // the daemon may have begun to stop meanwhile
    const spawn: Spawn = {
      ...options,
      client: client.name,
      id,
      number: journal.takeNumber(),
      request,
      streams: captured(request),
      reserved: [handleQuota, outputQuota, name, ...(terminalQuota === null ? [] : [terminalQuota])],
      launched: null,
      release: null,
      intent: null,
      done: Promise.withResolvers<void>(),
    };
    this.#underWay.add(spawn);
    try {
      return await this.#make(spawn);
    } finally {
      this.#underWay.delete(spawn);
      spawn.done.resolve();
    }
  }

  async #make(spawn: Spawn): Promise<Handle> {
    let handle: Handle;
    try {
      const { cgroup } = spawn.request;
      if (cgroup !== undefined) this.#parts.cgroups.create(spawn.number, cgroup);
      await this.#fork(spawn);
      this.#write(spawn);
      await spawn.launched!.begin();
      handle = this.#hold(spawn);
    } catch (error) {
      this.#undo(spawn);
      throw error;
    }
    // From here on the handle and its output count themselves.
    for (const each of spawn.reserved) each[Symbol.dispose]();
    this.#parts.reaper.attach(handle.process);
    spawn.release!();
    this.#begun.emit(handle.process.pid);
    return handle;
  }

  async #fork(spawn: Spawn): Promise<void> {
    const { reaper, pressure } = this.#parts;
    const pending = reaper.beginSpawn();
    try {
      spawn.launched = await pressure.relieveAsync(() => this.#launchWithPipes(spawn));
    } catch (error) {
      pending.done();
      throw error;
    }
    spawn.release = reaper.reserve(spawn.launched.pid, pending);
  }

  async #launchWithPipes({ number, client, request, streams, ...options }: Spawn): Promise<Launched> {
    const { outputs, inputs, terminals, cgroups, forkServer, features, descriptors } = this.#parts;
    using ends = await outputs.open(number, client, streams).catch((error) => {
      throw explain(error);
    });
    using opened = new DisposableStack();
    const files = {
      nothing: this.#nothing.fd,
      cgroupProcs: () => cgroups.procsFile(number),
      output: ends.of,
      input: () => opened.use(inputs.openPipe(number, client)),
      terminal: () => opened.use(terminals.open(number, client, request.tty!)),
    };
    const nonblocking = descriptorFlag(options, features);
    return await this.#launch(request, files, { forkServer, nonblocking, descriptors });
  }

  #write(spawn: Spawn): void {
    const { journal, features, cgroups } = this.#parts;
    const { number, client, id, request, streams, nonblocking, name, labels, claim } = spawn;
    const { pid, pidfd } = spawn.launched!;
    if (request.cgroup !== undefined) cgroups.follow(number, pid);
    const now = Date.now();
    const inode = features.inode ? pidfd.inode : null;
    const argv = request.argv.map(shownOf);
    const lifetime = lifetimeOf(request, inode === null ? (readStat(pid)?.startTicks ?? null) : null);
    const output = { streams, ended: false };
    const process = new Process({ id: number, pid, inode, argv, relation: 'child', startedAt: now, lifetime });
    const description = new OpenDescription(number, process, pidfd, nonblocking, output, inputOf(request));
    // A negative seq marks the intent; the seq of the handle is only known when that is held.
    spawn.intent = new Handle({ id, client, description, name, labels, createdAt: now, seq: -number });
    const isWritten = journal.commit([
      { write: 'process', process },
      { write: 'handle', handle: spawn.intent },
      ...(claim === undefined ? [] : [{ write: 'key' as const, key: claim.keep(id, null) }]),
    ]);
    if (!isWritten) throw unwritable(journal.fault, 'posix_spawn');
  }

  #hold({ intent, streams }: Spawn): Handle {
    const { journal, feed, table, handles, outputs, inputs, terminals } = this.#parts;
    const handle = new Handle({ ...intent!, seq: journal.head });
    const { client, description } = handle;
    const batch = new Batch(journal);
    batch.write({ write: 'placed', handle, before: intent!.seq });
    batch.event('opened', handle);
    if (streams.length > 0) outputs.track(description, client);
    if (description.input !== null) inputs.track(description);
    if (description.input === 'tty') terminals.track(description.id, client);
    table.add(handle.process);
    handles.add(handle);
    batch.commit(feed);
    return handle;
  }

  #undo({ number, request, streams, launched, release, intent }: Spawn): void {
    const { reaper, journal, outputs, inputs, cgroups } = this.#parts;
    if (launched !== null) {
      launched.undo();
      reaper.discard(launched.pid);
    }
    if (intent !== null) journal.commit([{ write: 'withdrawn', handle: intent }]);
    release?.();
    outputs.discard(number, streams);
    inputs.close(number);
    if (request.cgroup !== undefined) cgroups.release(number);
  }

  /** Waits until the spawn of a pid is done, if one is under way. */
  async untilDone(pid: number): Promise<void> {
    for (const { launched, done } of [...this.#underWay]) if (launched?.pid === pid) await done.promise;
  }

  /**
   * Refuses new spawns, and waits for those under way. Those that take longer than a second are abandoned.
   * @param problem the answer to new ones
   */
  async drain(problem: Problem): Promise<void> {
    this.#parts.admission.close(problem);
    const done = Promise.all([...this.#underWay].map((spawn) => spawn.done.promise));
    const late = setTimeout(() => this.#parts.forkServer.abandon(), DRAIN_MS);
    await done;
    clearTimeout(late);
  }
}

/** Begins a lifetime. @param startTicks identifies the process where it has no inode */
function lifetimeOf({ timeout, lease }: LaunchRequest, startTicks: number | null): Lifetime | null {
  if (timeout === undefined && lease === undefined) return null;
  return { startedAt: boottimeMs(), startTicks, timeout: timeout ?? null, lease: lease ?? null };
}

function inputOf({ stdin, tty }: LaunchRequest): InputKind | null {
  if (tty !== undefined) return 'tty';
  return stdin === 'pipe' ? 'pipe' : null;
}

function captured({ tty, stdout, stderr }: LaunchRequest): Stream[] {
  if (tty !== undefined) return ['stdout'];
  return [...(stdout === 'capture' ? ['stdout' as const] : []), ...(stderr === 'capture' ? ['stderr' as const] : [])];
}
