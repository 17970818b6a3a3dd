import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Clients } from './clients/clients.ts';
import { firstToken, readTokens, Tokens } from './clients/tokens.ts';
import type { Config } from './config/config.ts';
import { Problem } from './errors/problem.ts';
import { Feed } from './feed/feed.ts';
import { Handles } from './handles/handles.ts';
import { recover } from './handles/recover.ts';
import { Journal } from './journal/journal.ts';
import { type Features, probe } from './kernel/features.ts';
import { tryLock } from './kernel/lock.ts';
import { bootId } from './kernel/proc.ts';
import { becomeSubreaper } from './kernel/subreaper.ts';
import { Adoption } from './processes/adoption.ts';
import { ProcessTable } from './processes/process-table.ts';
import { Reaper } from './processes/reaper.ts';
import { Signals } from './signals/signals.ts';
import { Parking } from './waits/parking.ts';
import { Waits } from './waits/waitid.ts';

/** Every room of the house, put together; what serves them over HTTP is built on top. */
export interface Daemon {
  config: Config;
  features: Features;
  clients: Clients;
  journal: Journal;
  table: ProcessTable;
  reaper: Reaper;
  handles: Handles;
  waits: Waits;
  parking: Parking;
  signals: Signals;
  feed: Feed;
  /** Answers all that waits, so that what serves it can end. */
  drain(): void;
  /** Writes what is left and lets go. Spawned processes live on. */
  close(): void;
}

/**
 * @throws {Error} in one sentence with its cure: the kernel is too old, the state directory is another daemon's, a tokens
 *   file is readable by others
 */
export function startDaemon(config: Config): Daemon {
  const features = probe();
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const output = join(config.stateDir, 'output');
  mkdirSync(output, { recursive: true, mode: 0o700 });
  const lockFile = join(config.stateDir, 'lock');
  writeFileSync(lockFile, '', { mode: 0o600 });
  const lock = tryLock(lockFile);
  if (lock === null)
    throw new Error(`another waitd uses the state directory ${config.stateDir}: stop it, or give another --state-dir`);

  const clients = new Clients(tokensOf(config), config.insecureNoAuth);
  const journal = new Journal(config.stateDir, bootId(), config.maxEvents);
  const feed = new Feed(journal, config.socketBuffer);
  const table = new ProcessTable();
  const adoption = new Adoption(table);
  const reaper = new Reaper({ table, journal, adoption, feed, tellsReap: features.inode });
  const handles = new Handles({
    journal,
    table,
    adoption,
    reaper,
    feed,
    features,
    filesOf: (id) => ({ output: (stream) => join(output, `${id}.${stream}`), scratch: output }),
  });
  const parking = new Parking(table);
  const waits = new Waits({ journal, reaper, parking, nonblocking: features.nonblocking });
  const signals = new Signals(table, features);

  if (config.subreaper) becomeSubreaper();
  recover({ journal, table, handles, adoption, reaper, feed, features });
  reaper.start();

  const stopping = new Problem('ESHUTDOWN', 'The daemon is stopping: ask again when it is back.', {
    retry: { afterMs: 1000 },
    headers: { connection: 'close' },
  });
  return {
    config,
    features,
    clients,
    journal,
    table,
    reaper,
    handles,
    waits,
    parking,
    signals,
    feed,
    drain: () => {
      parking.close(stopping);
      feed.close(stopping);
    },
    close: () => {
      reaper.stop();
      journal.close();
      lock.close();
    },
  };
}

/** TCP needs a token: the ones of the file, or the one that is made at first start. */
function tokensOf({ tokens, listen, insecureNoAuth, stateDir }: Config): Tokens {
  if (tokens !== undefined) return readTokens(tokens);
  if (insecureNoAuth || !listen.some((address) => 'host' in address)) return new Tokens();
  return firstToken(join(stateDir, 'token'), `uid:${process.getuid!()}`);
}
