import { z } from 'zod';
import type { DaemonHandoff } from '../daemon.ts';
import { IdentityFacts } from '../journal/identity.ts';
import { MemoryFile } from '../kernel/memory-file.ts';
import { block, unblock } from '../kernel/signal-mask.ts';
import { makeShield } from '../kernel/signal-shield.ts';
import type { WaitEvent } from '../kernel/waitid.ts';
import type { StopRecord } from '../model/stop-reports.ts';
import { forwarded } from './early-signals.ts';

/** Names the descriptor of the handoff to the next image. */
const VARIABLE = 'WAITD_HANDOFF';

/** Raised whenever it changes so that an image of the other version could not read it. */
export const VERSION = 1;

/** Tell a rehearsal what it would be handed: the version, and the addresses of the listening sockets as JSON. */
const VERSION_VARIABLE = 'WAITD_HANDOFF_VERSION';
const LISTENERS_VARIABLE = 'WAITD_HANDOFF_LISTENERS';

/** The variables that tell a rehearsal of the daemon that it is to replace. */
export function rehearsalOf(listeners: readonly Listener[]): Record<string, string> {
  return { [VERSION_VARIABLE]: String(VERSION), [LISTENERS_VARIABLE]: JSON.stringify(listeners) };
}

/**
 * Finds out whether this start is the rehearsal of an upgrade.
 * @returns `null` where it is not; `any` listeners where the running daemon is of a version that does not tell them
 * @throws {Error} where this version could not take over: children and their statuses would be lost
 */
export function takeRehearsal(): { listeners: Listener[] | 'any' } | null {
  const { [VERSION_VARIABLE]: version, [LISTENERS_VARIABLE]: listeners } = process.env;
  if (version === undefined) return null;
  if (Number(version) !== VERSION)
    throw new Error(`the running daemon hands over version ${version}, and this one takes ${VERSION}: restart instead`);
  return { listeners: listeners === undefined ? 'any' : z.array(Listener).parse(JSON.parse(listeners)) };
}

const descriptor = z.int().min(3);
const statements = z.array(z.tuple([z.string(), z.array(z.union([z.string(), z.number(), z.null()]))]));

/** A listening socket, by its address in the settings. */
const Listener = z.object({
  address: z.string(),
  fd: descriptor,
  made: z.boolean().default(true),
  file: z.object({ path: z.string(), id: z.string() }).optional(),
});
type Listener = z.infer<typeof Listener>;

/**
 * What the journal does not hold and the next image of this very process must have: descriptors, by number, which live over
 * execve(2), and the stops that clients have not read.
 */
const Schema = z.object({
  version: z.literal(VERSION),
  /** Of the state directory. */
  lock: descriptor,
  listeners: z.array(Listener),
  /** By the journal's number of the open file description. */
  pidfds: z.array(z.object({ description: z.int(), fd: descriptor })),
  /** By the journal's number of the process. */
  groups: z.array(z.object({ process: z.int(), pid: z.int().default(0), handles: z.int(), fd: descriptor })),
  pauses: z.array(z.object({ process: z.int(), pauses: z.custom<StopRecord>((value) => typeof value === 'object') })),
  /** Of children without a handle. */
  stops: z.array(z.custom<WaitEvent>((value) => typeof value === 'object')).default([]),
  /** What the service manager keeps a pidfd of, by the journal's number of the process. */
  stored: z.array(z.int()),
  /** The processes that hold the pipes of captured streams. */
  keepers: z.array(z.object({ pid: z.int(), startTicks: z.number() })).default([]),
  /** What the journal must know, whatever has become of its files. */
  unwritten: z.object({
    head: z.int(),
    applied: z.int().default(0),
    lines: z.array(z.object({ number: z.int(), statements })).default([]),
    living: statements.default([]),
    identity: IdentityFacts.optional(),
  }),
  /** The handle of the program that it runs like an init. */
  main: z.string().nullable().default(null),
  /** When the daemon last failed, in milliseconds on CLOCK_BOOTTIME. */
  failures: z.array(z.number()),
});
export type Handoff = z.infer<typeof Schema> & DaemonHandoff;

/** Keeps SIGUSR1 from opening Node's debugger also before the first line of ours. */
const SHIELD = '--disable-sigusr1';

/**
 * Replaces this process's image by what the same command now is: same pid, same children, same place among its parent's.
 * @throws {Error} where that fails; nothing has changed then
 */
export function execute(handoff: Omit<Handoff, 'version'>): never {
  const file = MemoryFile.create('waitd-handoff');
  file.write(JSON.stringify({ ...handoff, version: VERSION }));
  file.keepOverExec();
  const shield = makeShield();
  const environment = { ...process.env, ...shield.environment, [VARIABLE]: String(file.fd) };
  const options = [...process.execArgv.filter((option) => option !== SHIELD), SHIELD];
  const argv = [process.execPath, ...options, ...process.argv.slice(1)];
  // Their handlers end with this image, and until the next one has its own most signals would end the process.
  block(forwarded);
  try {
    process.execve!(process.execPath, argv, environment);
    throw new Error('execve came back');
  } catch (error) {
    unblock(forwarded);
    shield.file.close();
    file.close();
    throw error;
  }
}

/** What the image before this one left; `null` for a first start. To be taken once, before anything else is opened. */
export function takeHandoff(): Handoff | null {
  const number = process.env[VARIABLE];
  if (number === undefined) return null;
  // No child and no later start may take it for its own.
  delete process.env[VARIABLE];
  using file = new MemoryFile(Number(number));
  return Schema.parse(JSON.parse(file.read()));
}
