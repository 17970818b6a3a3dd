import { z } from 'zod';
import type { DaemonHandoff } from '../daemon.ts';
import { IdentityFacts } from '../journal/identity.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { block, unblock } from '../kernel/signal-mask.ts';
import { makeShield } from '../kernel/signal-shield.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { StopRecord } from '../model/stop-reports.ts';
import { forwarded } from './early-signals.ts';

/** The variable with the descriptor of the handoff for the next image. */
const VARIABLE = 'WAITD_HANDOFF';

/** The version of the format. Increase it for any change that an image of the other version cannot read. */
export const VERSION = 1;

/** The variables that give a rehearsal the version and, as JSON, the listening sockets of the running daemon. */
const VERSION_VARIABLE = 'WAITD_HANDOFF_VERSION';
const LISTENERS_VARIABLE = 'WAITD_HANDOFF_LISTENERS';

/** Returns the environment variables that describe the running daemon to a rehearsal. */
export function rehearsalOf(listeners: readonly Listener[]): Record<string, string> {
  return { [VERSION_VARIABLE]: String(VERSION), [LISTENERS_VARIABLE]: JSON.stringify(listeners) };
}

/**
 * Reads the variables of a rehearsal.
 * @returns `null` if this start is not a rehearsal; `any` as the listeners if the running daemon's version does not list them
 * @throws {Error} if this version cannot read the running daemon's handoff, so that an upgrade would lose children and statuses
 */
export function takeRehearsal(): { listeners: Listener[] | 'any' } | null {
  const { [VERSION_VARIABLE]: version, [LISTENERS_VARIABLE]: listeners } = process.env;
  if (version === undefined) return null;
  if (Number(version) !== VERSION)
    throw new Error(
      `the running daemon hands over version ${version}, and this version supports only ${VERSION}: restart instead of upgrading`,
    );
  return { listeners: listeners === undefined ? 'any' : z.array(Listener).parse(JSON.parse(listeners)) };
}

const descriptor = z.int().min(3);
const statements = z.array(z.tuple([z.string(), z.array(z.union([z.string(), z.number(), z.null()]))]));

/** A listening socket, with its address in the form of the settings. */
const Listener = z.object({
  address: z.string(),
  fd: descriptor,
  made: z.boolean().default(true),
  file: z.object({ path: z.string(), id: z.string() }).optional(),
});
type Listener = z.infer<typeof Listener>;

/**
 * The state that the next image of this process needs and the journal does not store. It has the numbers of descriptors that stay open
 * across execve(2), and the stops that clients have not read.
 */
const Schema = z.object({
  version: z.literal(VERSION),
  /** The lock of the state directory. */
  lock: descriptor,
  listeners: z.array(Listener),
  /** Pidfds by the journal's number of the open description. */
  pidfds: z.array(z.object({ description: z.int(), fd: descriptor })),
  /** Pidfds of process groups without a leader, by the journal's number of the process. */
  groups: z.array(z.object({ process: z.int(), pid: z.int().default(0), handles: z.int(), fd: descriptor })),
  pauses: z.array(z.object({ process: z.int(), pauses: z.custom<StopRecord>((value) => typeof value === 'object') })),
  /** Unread stops of children without a handle. */
  stops: z.array(z.custom<WaitEvent>((value) => typeof value === 'object')).default([]),
  /** The journal's numbers of the processes whose pidfds the service manager stores. */
  stored: z.array(z.int()),
  /** Pipes and terminals that programs read, by the journal's number of the description, and the names of those that are stored too. */
  inputs: z.array(z.object({ description: z.int(), kind: z.enum(['pipe', 'tty']), fd: descriptor })).default([]),
  storedInputs: z.array(z.string()).default([]),
  /** The client of each terminal, by the journal's number of the description. */
  terminals: z.array(z.object({ description: z.int(), client: z.string() })).default([]),
  /** The processes that hold the pipes of captured streams. */
  keepers: z.array(z.object({ pid: z.int(), startTicks: z.number() })).default([]),
  /** The changes that the journal has not written to its files. */
  unwritten: z.object({
    head: z.int(),
    applied: z.int().default(0),
    lines: z.array(z.object({ number: z.int(), statements })).default([]),
    living: statements.default([]),
    identity: IdentityFacts.optional(),
  }),
  /** The id of the main program's handle. */
  main: z.string().nullable().default(null),
  /** The times of recent failures, in milliseconds on CLOCK_BOOTTIME. */
  failures: z.array(z.number()),
});
export type Handoff = z.infer<typeof Schema> & DaemonHandoff;

/** Makes Node.js block SIGUSR1 from the start, so that it cannot open the inspector before the daemon's own code runs. */
const SHIELD = '--disable-sigusr1';

/**
 * Executes the daemon's command again in this process (execve(2)): the pid, the children and the parent stay the same.
 * @throws {Error} if the execve fails; this image can then continue
 */
export function execute(handoff: Omit<Handoff, 'version'>): never {
  const file = MemoryFile.create('waitd-handoff');
  file.write(JSON.stringify({ ...handoff, version: VERSION }));
  file.keepOverExec();
  const shield = makeShield();
  const environment = { ...process.env, ...shield.environment, [VARIABLE]: String(file.fd) };
  const options = [...process.execArgv.filter((option) => option !== SHIELD), SHIELD];
  const argv = [process.execPath, ...options, ...process.argv.slice(1)];
  // execve removes the handlers, and until the next image installs its own, most signals would end the process.
  block(forwarded);
  try {
    process.execve!(process.execPath, argv, environment);
    throw new Error('execve returned');
  } catch (error) {
    unblock(forwarded);
    shield.file.close();
    file.close();
    throw error;
  }
}

/**
 * Takes the handoff of the previous image. Call it once, before any descriptor is opened.
 * @returns `null` at a first start
 */
export function takeHandoff(): Handoff | null {
  const number = process.env[VARIABLE];
  if (number === undefined) return null;
  // A child or a later image must not read the same variable.
  delete process.env[VARIABLE];
  using file = new MemoryFile(Number(number));
  return Schema.parse(JSON.parse(file.read()));
}
