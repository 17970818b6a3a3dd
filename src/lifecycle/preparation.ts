import { accessSync, closeSync, constants, existsSync, openSync, realpathSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Logger, pino } from 'pino';
import { build } from '../app.ts';
import { readPolicy } from '../clients/policy-file.ts';
import { readTokens } from '../clients/tokens.ts';
import type { Config } from '../config/config.ts';
import { startDaemon, usesFirstToken } from '../daemon.ts';
import { sentenceOf } from '../errors/sentence.ts';
import { type Made, makeDirectory } from '../files/made.ts';
import { requirePrivate } from '../files/require-private.ts';
import { bindAddress } from '../http/bind-address.ts';
import {
  type BoundEndpoint,
  closeUnwanted,
  type Endpoint,
  endpointsAfterUpgrade,
  endpointsAtStart,
  notPassed,
} from '../http/listen-addresses.ts';
import { tlsServer } from '../http/tls.ts';
import { markFile } from '../journal/mark.ts';
import {
  outputDirectory,
  requireRoom,
  scratchDirectory,
  takeStateDirectory,
  tokenFile,
} from '../journal/state-directory.ts';
import { Descriptor } from '../kernel/descriptor.ts';
import { type Features, probe } from '../kernel/features.ts';
import { type Passed, takePassed } from '../kernel/notify.ts';
import { type Handoff, takeRehearsal } from './handoff.ts';
import { requireProgram } from './main-program.ts';

/** The resources that a start acquires before it serves requests. */
export interface Prepared {
  features: Features;
  /** The lock of the state directory. */
  lock: Descriptor;
  endpoints: BoundEndpoint[];
  /** The files and directories that the start has created; disposing of it removes them. */
  made: Made;
}

/** The state that a start inherits. */
interface Surroundings {
  /** The sockets of the previous image; `null` at a first start, `any` if that image does not list them. */
  listeners: Handoff['listeners'] | 'any' | null;
  /** The lock of the state directory, in the form of {@link takeStateDirectory}. */
  held: Descriptor | 'elsewhere' | null;
  passed: readonly Passed[];
}

/** Runs one step of a start. A rehearsal records the error of a failed step and continues. @returns `undefined` if the step failed */
type Attempt = <T>(step: () => T | Promise<T>) => Promise<T | undefined>;

const silent: Logger = pino({ level: 'silent' });

/**
 * Acquires the resources of a start.
 * @param handoff the state from the previous image; `null` at a first start
 * @param passed the descriptors from the service manager
 * @throws {Error} with one sentence that says what to do; removes everything that the start has created
 */
export async function prepare(
  config: Config,
  { handoff, passed }: { handoff: Handoff | null; passed: readonly Passed[] },
): Promise<Prepared> {
  const made = new DisposableStack();
  try {
    const listeners = handoff?.listeners ?? null;
    const held = handoff === null ? null : new Descriptor(handoff.lock);
    const taken = await take(config, { listeners, held, passed }, made, false, async (step) => step());
    const { features, lock, endpoints } = taken;
    if (listeners !== null) closeUnwanted(endpoints, listeners);
    for (const file of filesMadeLater(config)) if (!existsSync(file)) made.defer(() => rmSync(file, { force: true }));
    return { features: features!, lock: lock!, endpoints, made };
  } catch (error) {
    made.dispose();
    throw error;
  }
}

/** Lists the files that the rest of a start creates outside of the state directory. */
function filesMadeLater({ audit, marks, stateDir }: Config): string[] {
  return [
    ...(audit !== undefined && isPath(audit) ? [audit] : []),
    ...(marks === null ? [] : [markFile(marks, realpathSync(stateDir))]),
  ];
}

/**
 * Runs the steps of a start up to serving, and removes everything again.
 * @returns one sentence for each reason why a start would fail
 */
export async function rehearse(config: Config): Promise<string[]> {
  using made = new DisposableStack();
  const problems = new Set<string>();
  const attempt: Attempt = async (step) => {
    try {
      return await step();
    } catch (error) {
      problems.add(sentenceOf(error));
      return undefined;
    }
  };
  const rehearsal = await attempt(takeRehearsal);
  const passed = (await attempt(takePassed)) ?? [];
  const found = rehearsal == null ? { listeners: null, held: null } : { ...rehearsal, held: 'elsewhere' as const };
  const { features, lock } = await take(config, { ...found, passed }, made, true, attempt);
  if (features === undefined || lock === undefined) return [...problems];
  await attempt(() => requireRoom(config.stateDir));
  if (problems.size === 0) await attempt(() => startInScratch(config, features, made));
  return [...problems];
}

/**
 * Acquires the resources: first the checks that change nothing, then the state directory, last the listening sockets.
 * @param trial keeps the stale socket files of a dead daemon
 */
async function take(
  config: Config,
  { listeners, held, passed }: Surroundings,
  made: Made,
  trial: boolean,
  attempt: Attempt,
): Promise<{ features: Features | undefined; lock: Descriptor | null | undefined; endpoints: BoundEndpoint[] }> {
  const isFirst = listeners === null;
  const endpoints = await attempt(() => endpointsFor(config, { listeners, passed }));
  const features = await attempt(probe);
  for (const check of checksOf(config, isFirst)) await attempt(check);
  const lock = await attempt(() => takeStateDirectory(config.stateDir, made, held));
  const bound: BoundEndpoint[] = [];
  for (const endpoint of endpoints ?? []) {
    const socket = await attempt(() => socketFor(endpoint, config, made, trial));
    if (socket !== undefined) bound.push({ address: endpoint.address, socket });
  }
  return { features, lock, endpoints: bound };
}

function endpointsFor(config: Config, { listeners, passed }: Pick<Surroundings, 'listeners' | 'passed'>): Endpoint[] {
  if (listeners === null) return endpointsAtStart(config, passed);
  return listeners === 'any' ? [] : endpointsAfterUpgrade(config, listeners);
}

async function socketFor({ address, socket }: Endpoint, { socket: access }: Config, made: Made, trial: boolean) {
  if (socket !== undefined) return socket;
  if ('passed' in address) throw notPassed(address);
  return bindAddress(address, access, made, trial);
}

/** Lists the checks that create nothing. The files that they read are read again when they are used. */
function checksOf(config: Config, isFirst: boolean): (() => unknown)[] {
  const { policy, tls, tokens, audit, main } = config;
  const token = tokenFile(config.stateDir);
  const checks: (() => unknown)[] = [];
  if (policy !== undefined) checks.push(() => readPolicy(policy));
  if (tls !== null) checks.push(() => tlsServer(tls, silent));
  if (tokens !== undefined) checks.push(() => readTokens(tokens));
  if (usesFirstToken(config) && existsSync(token)) checks.push(() => requirePrivate(token, 'tokens'));
  if (audit !== undefined && isPath(audit)) checks.push(() => requireWritable(audit));
  if (main !== null && isFirst) checks.push(() => requireProgram(main));
  return checks;
}

const isPath = (audit: string): boolean => audit !== 'stdout' && audit !== 'off';

/** Checks that the audit file can be opened. O_NONBLOCK avoids blocking on a FIFO without a reader. */
function requireWritable(audit: string): void {
  try {
    if (existsSync(audit)) closeSync(openSync(audit, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK));
    else accessSync(dirname(audit), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new Error(`--audit ${audit} cannot be opened for writing: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** Builds the whole daemon in a scratch directory, to detect a version that cannot start. */
async function startInScratch(config: Config, features: Features, made: Made): Promise<void> {
  const stateDir = scratchDirectory(config.stateDir);
  made.defer(() => rmSync(stateDir, { recursive: true, force: true }));
  makeDirectory(outputDirectory(stateDir), 0o700, made);
  const nothing = new Descriptor(-1);
  const daemon = startDaemon(
    { ...config, stateDir, marks: null, subreaper: false },
    { handoff: null, passed: [], notifier: null, features, lock: nothing },
  );
  await build(daemon, silent, null);
  daemon.close();
}
