import { OutputAnswers } from './api/output-answers.ts';
import { Cgroups } from './cgroups/cgroups.ts';
import { Clients } from './clients/clients.ts';
import { PolicyWatch } from './clients/policy-watch.ts';
import { firstToken, readTokens, Tokens } from './clients/tokens.ts';
import type { Config } from './config/config.ts';
import { Deadlines } from './deadlines/deadlines.ts';
import { restarting, stopping } from './errors/shutdown.ts';
import { Feed, type Why } from './feed/feed.ts';
import { Handles } from './handles/handles.ts';
import { recover } from './handles/recover.ts';
import { Retention } from './handles/retention.ts';
import { IdempotencyKeys } from './idempotency/idempotency-keys.ts';
import { type HandedInput, Inputs } from './input/inputs.ts';
import { isInputName, storedInputs } from './input/stored-inputs.ts';
import type { Journal } from './journal/journal.ts';
import type { HandedJournal } from './journal/replay.ts';
import { openJournal, outputDirectory, tokenFile } from './journal/state-directory.ts';
import { BootTimer } from './kernel/boot-timer.ts';
import { boottimeMs } from './kernel/clock.ts';
import { Descriptor, descriptorLimit } from './kernel/descriptor.ts';
import { Wakeup } from './kernel/epoll.ts';
import type { Features } from './kernel/features.ts';
import type { Notifier, Passed } from './kernel/notify.ts';
import { Pidfd } from './kernel/pidfd.ts';
import { bootId } from './kernel/proc.ts';
import { becomeSubreaper } from './kernel/subreaper.ts';
import { Keeper } from './output/keeper.ts';
import type { KnownKeeper } from './output/keepers-file.ts';
import { MoveQueue } from './output/move-queue.ts';
import { Outputs } from './output/outputs.ts';
import { Adoption } from './processes/adoption.ts';
import { DescriptorStore, pidfdName, pidfdsIn, storedPidfds } from './processes/descriptor-store.ts';
import { type HandedProcesses, handOverProcesses, pidfdsOf } from './processes/hand-over.ts';
import { ProcessTable } from './processes/process-table.ts';
import { Reaper } from './processes/reaper.ts';
import { UsageReader } from './processes/usage-reader.ts';
import { Settlements } from './settlement/settlements.ts';
import { Lifetimes } from './signals/lifetimes.ts';
import { Signals } from './signals/signals.ts';
import { Terminations } from './signals/terminations.ts';
import { ForkServer } from './spawn/fork-server.ts';
import { Terminals } from './terminals/terminals.ts';
import { Parking } from './waits/parking.ts';
import { Waits } from './waits/waitid.ts';
import { Watches } from './watches/watches.ts';

/** The parts of the daemon, without HTTP. */
export interface Daemon {
  config: Config;
  features: Features;
  /** RLIMIT_NOFILE, which limits the sum of live handles, parked calls and sockets. */
  descriptors: number;
  clients: Clients;
  /** `null` without a policy. */
  policy: PolicyWatch | null;
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  settlements: Settlements;
  handles: Handles;
  waits: Waits;
  parking: Parking;
  signals: Signals;
  terminations: Terminations;
  lifetimes: Lifetimes;
  feed: Feed;
  idempotencyKeys: IdempotencyKeys;
  outputs: Outputs;
  inputs: Inputs;
  terminals: Terminals;
  outputAnswers: OutputAnswers;
  usageReader: UsageReader;
  forkServer: ForkServer;
  watches: Watches;
  /** Answers all waiting calls with ESHUTDOWN, and closes all event streams and sockets. */
  drain(why: Why): void;
  /** Writes pending changes and releases all resources. Spawned processes keep running. */
  close(): void;
  /** Like {@link close}, but keeps the resources that the next image inherits, and returns them. */
  handOver(): DaemonHandoff;
}

/** The state that the next image of this process needs and the journal does not store. */
export interface DaemonHandoff extends HandedProcesses {
  /** The descriptor of the state directory's lock. */
  lock: number;
  /** The journal's numbers of the processes whose pidfds the service manager stores. */
  stored: number[];
  /** The names of the inputs that it stores. */
  storedInputs: string[];
  inputs: HandedInput[];
  /** The client of each terminal, by the journal's number of the description. */
  terminals: { description: number; client: string }[];
  /** The processes that hold the pipes of captured streams. */
  keepers: KnownKeeper[];
  /** The changes that the journal has not written to its files. */
  unwritten: HandedJournal;
}

/** The state that a start inherits. */
export interface Found {
  /** The state from the previous image; `null` at a first start. */
  handoff: DaemonHandoff | null;
  /** The descriptors from the service manager. */
  passed: readonly Passed[];
  /** `null` without a service manager. */
  notifier: Notifier | null;
  features: Features;
  /** The lock of the state directory. */
  lock: Descriptor;
}

/**
 * Builds the daemon, and takes over the processes of an earlier one.
 * @throws {Error} with one sentence that says what to do, for example if other users can read the tokens file
 */
export function startDaemon(config: Config, { handoff, passed, notifier, features, lock }: Found): Daemon {
  const stored = storedPidfds(passed);
  const inherited = handoff === null ? new Map<number, Pidfd>() : pidfdsOf(handoff);
  const descriptors = descriptorLimit();
  const { stateDir: directory } = config;

  const policy =
    config.policy === undefined ? null : new PolicyWatch(config.policy, (version) => clients.apply(version));
  const clients = new Clients({
    tokens: tokensOf(config),
    anonymousTcp: config.insecureNoAuth,
    policy: policy?.read() ?? null,
  });
  const keepEvents = config.maxEvents;
  const { marks, maxKeys } = config;
  const journal = openJournal({ directory, bootId: bootId(), keepEvents, marks, handed: handoff?.unwritten });
  // Closes the journal if a later step fails, so that the failed start uses up no seqs.
  using failed = new DisposableStack();
  failed.defer(() => journal.close());
  const timer = new BootTimer();
  const deadlines = new Deadlines(timer, boottimeMs);
  const feed = new Feed(journal, config.socketBuffer, deadlines);
  const leftInputs = storedInputs(passed);
  const kept = [
    ...[...stored.keys(), ...(handoff?.stored ?? [])].map(pidfdName),
    ...leftInputs.keys(),
    ...(handoff?.storedInputs ?? []),
  ];
  // Before 6.9 a stored pidfd has no inode, so its process could not be identified after a restart.
  const store = notifier === null || !features.inode ? null : new DescriptorStore(notifier, kept);
  const table = new ProcessTable(store);
  const adoption = new Adoption(table);
  const cgroups = new Cgroups(config.cgroup ?? null, journal.node);
  const reaper = new Reaper({ table, journal, adoption, feed, cgroups, tellsReap: features.inode });
  const keeper = new Keeper({
    directory,
    handed: handoff?.keepers ?? [],
    bootId: journal.bootId,
    epoll: table.epoll,
    onStart: (pid) => reaper.ownChildEnded(pid),
  });
  const moves = new MoveQueue();
  const outputs = new Outputs({
    directory: outputDirectory(directory),
    maxOutput: config.maxOutput,
    descriptors: descriptors - RESERVED_DESCRIPTORS,
    epoll: table.epoll,
    keeper,
    moves,
    quotaOf: (client) => clients.quotasOf(client).outputBytes,
  });
  const inputs = new Inputs({ epoll: table.epoll, store, moves, descriptors: descriptors - RESERVED_DESCRIPTORS });
  const terminals = new Terminals({
    inputs,
    outputs,
    epoll: table.epoll,
    descriptors: descriptors - RESERVED_DESCRIPTORS,
  });
  const forkServer = new ForkServer(table.epoll, (pid) => reaper.ownChildEnded(pid));
  table.epoll.add(timer, new Wakeup(() => setImmediate(() => deadlines.run())));
  const forUse = descriptors - RESERVED_DESCRIPTORS;
  const settlements = new Settlements({ journal, table, reaper, feed, cgroups, deadlines, descriptors: forUse });
  const handles = new Handles({
    journal,
    table,
    adoption,
    reaper,
    settlements,
    feed,
    features,
    descriptors: forUse,
    outputs,
    inputs,
    terminals,
    cgroups,
    forkServer,
  });
  const parking = new Parking(table);
  const waits = new Waits({ journal, reaper, parking, nonblocking: features.nonblocking });
  const watches = new Watches({ journal, handles, clients, table, reaper, features });
  const signals = new Signals(table, features, cgroups);
  const terminations = new Terminations({ journal, table, reaper, signals, parking, deadlines });
  const lifetimes = new Lifetimes({ journal, table, reaper, terminations, deadlines });
  handles.onBegun((pid) => {
    const process = table.get(pid);
    if (process !== undefined) lifetimes.begin(process);
  });
  const idempotencyKeys = new IdempotencyKeys(journal, maxKeys);
  const retention = new Retention(journal, handles, config.keep);

  outputs.resume();
  if (config.subreaper) becomeSubreaper();
  const pauses = new Map(handoff?.pauses.map(({ process, pauses }) => [process, pauses]));
  recover({
    journal,
    table,
    handles,
    adoption,
    reaper,
    feed,
    features,
    inherited,
    pauses,
    stored,
    store,
    outputs,
    cgroups,
  });
  const handed = handoff?.inputs.map(({ fd, ...input }) => ({ ...input, descriptor: new Descriptor(fd), inode: null }));
  inputs.resume([...leftInputs.values(), ...(handed ?? [])], (id) => handles.withInput(id));
  const terminalOwners = handoff?.terminals.map(({ description, client }) => [description, client] as const) ?? [];
  terminals.resume(new Map([...journal.queries.outputs(), ...terminalOwners]));
  store?.keepOnly(new Set([...[...table.values()].map(({ id }) => pidfdName(id)), ...inputs.storedNames]));
  for (const stop of handoff?.stops ?? []) table.stops.note(stop.siginfo.pid, stop);
  const promised = new Set(journal.queries.terminations().map(({ process }) => process));
  for (const { fd, ...group } of handoff?.groups ?? []) {
    const pidfd = new Pidfd(fd);
    if (journal.queries.holds(group.process) || promised.has(group.process)) table.groups.restore({ ...group, pidfd });
    else pidfd.close();
  }
  terminations.resume();
  lifetimes.resume();
  reaper.start();
  outputs.onEnded((description) => handles.endOutput(description));
  settlements.resume();
  handles.resumeOutput();
  handles.resumeCgroups();
  retention.start();
  watches.resume();
  failed.move();

  return {
    config,
    features,
    descriptors,
    clients,
    policy,
    journal,
    table,
    reaper,
    settlements,
    handles,
    waits,
    parking,
    signals,
    terminations,
    lifetimes,
    feed,
    idempotencyKeys,
    outputs,
    inputs,
    terminals,
    outputAnswers: new OutputAnswers({ journal, handles, outputs, parking }),
    usageReader: new UsageReader(cgroups),
    forkServer,
    watches,
    drain: (why) => {
      const problem = why === 'stopping' ? stopping : restarting;
      parking.close(problem);
      idempotencyKeys.close(problem);
      feed.close(problem, why);
      outputs.close();
    },
    close: () => {
      policy?.close();
      watches.stop();
      retention.stop();
      outputs.stop();
      keeper.stop();
      cgroups.stop();
      settlements.stop();
      reaper.stop();
      forkServer.close();
      store?.close();
      journal.close();
      lock.close();
    },
    handOver: () => {
      watches.stop();
      retention.stop();
      outputs.stop();
      keeper.stop();
      settlements.stop();
      reaper.stop();
      forkServer.close();
      const names = store?.close() ?? [];
      const handed = {
        stored: pidfdsIn(names),
        storedInputs: names.filter(isInputName),
        inputs: inputs.handOver(),
        terminals: terminals.handOver(),
      };
      journal.close();
      const unwritten = journal.handed;
      lock.keepOverExec();
      return { lock: lock.fd, unwritten, ...handed, keepers: keeper.handover, ...handOverProcesses(table) };
    },
  };
}

/** The descriptors that handles leave free for connections, spawns in progress and the daemon itself. */
const RESERVED_DESCRIPTORS = 96;

/** Reports whether the daemon uses the token that it creates at its first start: an address needs a token, and `--tokens` is not given. */
export function usesFirstToken({ tokens, listen, insecureNoAuth }: Config): boolean {
  const needsToken = listen.some((address) => !('unix' in address) || address.token === true);
  return tokens === undefined && !insecureNoAuth && needsToken;
}

function tokensOf(config: Config): Tokens {
  if (config.tokens !== undefined) return readTokens(config.tokens);
  return usesFirstToken(config) ? firstToken(tokenFile(config.stateDir), `uid:${process.getuid!()}`) : new Tokens();
}
