#!/usr/bin/env node
import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import { build } from './app.ts';
import { type Config, readConfig } from './config/config.ts';
import { optionsHelp, UsageError } from './config/options.ts';
import { startDaemon } from './daemon.ts';
import { closeInherited } from './kernel/descriptor.ts';
import { version } from './version.ts';

const HELP = `waitd ${version}: waits for processes on behalf of others

Usage: waitd serve [OPTIONS]

${optionsHelp()}

Every option is also read from the environment: --state-dir from WAITD_STATE_DIR, and so on.
Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong usage.
`;

/** How long answers may take to leave when the daemon stops. */
const STOP_GRACE_MS = 2000;

async function main([command, ...argv]: string[]): Promise<void> {
  if (command === '--version') {
    process.stdout.write(`${version}\n`);
    return;
  }
  if (command === '--help' || command === undefined || argv.includes('--help')) {
    process.stdout.write(HELP);
    return;
  }
  if (command !== 'serve') throw new UsageError(`${command} is no command; the only one is serve`);
  await serve(readConfig(argv, process.env));
}

/** A person at a terminal is told how to call it; a pipe gets JSON. */
function loggerFor(config: Config, isTerminal: boolean): Logger {
  return isTerminal
    ? pino({ level: config.logLevel === 'info' ? 'warn' : config.logLevel }, pino.destination(2))
    : pino({ level: config.logLevel }, pino.destination({ dest: 1, sync: true }));
}

async function serve(config: Config): Promise<void> {
  closeInherited();
  const isTerminal = process.stdout.isTTY === true;
  const logger = loggerFor(config, isTerminal);
  const daemon = startDaemon(config);
  const { app, listeners } = await build(daemon, logger);
  const addresses: string[] = [];
  for (const address of config.listen) {
    addresses.push(await listeners.listen(address));
    logger.info({ address: addresses.at(-1) }, 'listening');
  }

  let stopping = false;
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    if (stopping) process.exit(1); // asked twice: now
    stopping = true;
    logger.info({ signal }, 'stopping');
    listeners.stop();
    daemon.drain();
    await app.close();
    await listeners.close(STOP_GRACE_MS);
    daemon.close();
    logger.info('stopped');
    process.exit(0);
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);

  logger.info({ version, pid: process.pid, node: daemon.journal.node, head: daemon.journal.head }, 'ready');
  if (isTerminal) process.stdout.write(greeting(config, addresses));
}

function greeting({ stateDir, tokens, insecureNoAuth }: Config, addresses: string[]): string {
  const body = `-H 'content-type: application/json' -d '{"spawn":{"argv":["sleep","5"]}}'`;
  const token = tokens === undefined ? `$(cat ${join(stateDir, 'token')})` : '$TOKEN';
  const examples = addresses.map((address) =>
    address.startsWith('unix:')
      ? `  curl --unix-socket ${address.slice(5)} http://localhost/v1/handles ${body}`
      : `  curl${insecureNoAuth ? '' : ` -H "authorization: Bearer ${token}"`} http://${address.slice(4)}/v1/handles ${body}`,
  );
  return [`waitd ${version} is ready. Start a process and hold it:`, ...examples, 'Ctrl-C stops the daemon.', ''].join(
    '\n',
  );
}

main(process.argv.slice(2)).catch((error: unknown) => {
  const usage = error instanceof UsageError;
  process.stderr.write(`waitd: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(usage ? 2 : 1);
});
