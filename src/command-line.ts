import { constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { type Logger, pino } from 'pino';
import { CLIENT_NAME, hashOf, newToken } from './clients/tokens.ts';
import type { Config } from './config/config.ts';
import { nearestOf, optionsHelp, UsageError } from './config/options.ts';
import { sentenceOf } from './errors/sentence.ts';
import { writerTo } from './files/line-writer.ts';
import { isErrno } from './kernel/errno.ts';
import { unblock } from './kernel/signal-mask.ts';
import { endShield } from './kernel/signal-shield.ts';
import { forwarded, letGoAllBut, served } from './lifecycle/early-signals.ts';
import { version } from './version.ts';

const COMMANDS = ['serve', 'policy check', 'token', 'help', 'version'];

const HELP = `waitd ${version}: waits for processes on behalf of others

Usage: waitd serve [OPTIONS] [--main -- CMD ARG…]
       waitd policy check FILE    whether a policy is one, and where not
       waitd token CLIENT         makes a token, and the line for --tokens that has its hash
       waitd help, version        prints this text (also -h, --help), or the version (also -V, --version)

SIGHUP replaces the daemon by what its command now is, and keeps everything (at a terminal it stops it, as a terminal's end
does); SIGTERM and SIGINT stop it.

${optionsHelp()}

Every option is also read from the environment: --state-dir from WAITD_STATE_DIR, and so on.
Exit codes: 0 stopped as asked, 1 could not start or failed, 2 wrong usage. With --main: the program's own, 128 and the signal that
killed it, 126 where it cannot be executed, 127 where it is not found.
`;

/** What the command does. Where that fails, it says so in one line and ends with its exit code. */
export async function run(argv: string[]): Promise<void> {
  try {
    endShield();
    // Held back by the image before this one; SIGUSR1 by Node.js itself, for --disable-sigusr1. They are listened for by now.
    unblock(forwarded);
    await obey(argv);
  } catch (error) {
    process.stderr.write(`waitd: ${sentenceOf(error)}\n`);
    process.exit(exitCodeOf(error));
  }
}

/** Errors of the main program have an exit code of their own. */
function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return 2;
  return error instanceof Error && 'exitCode' in error ? Number(error.exitCode) : 1;
}

async function obey([command, ...argv]: string[]): Promise<void> {
  if (command !== 'serve') await letGoAllBut([]);
  if (isVersion(command)) return print(`${version}\n`);
  // What follows `--` belongs to the main program.
  const own = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length);
  if (command === undefined || isHelp(command) || own.some((word) => word === '-h' || word === '--help'))
    return print(HELP);
  if (command === 'policy') return checkPolicy(argv);
  if (command === 'token') return makeToken(argv);
  if (command !== 'serve') throw unknownCommand(command);
  // Each command loads what it needs.
  const { readConfig } = await import('./config/config.ts');
  const config = readConfig(argv, process.env);
  if (config.check) await letGoAllBut([]);
  else if (config.main === null) await letGoAllBut(served);
  if (config.check) await check(config);
  else await serve(config);
}

const isHelp = (command: string): boolean => ['help', '-h', '--help'].includes(command);
const isVersion = (command: string | undefined): boolean => ['version', '-V', '--version'].includes(command ?? '');

function unknownCommand(command: string): UsageError {
  if (command.startsWith('-')) return new UsageError(`${command} needs a command before it: waitd serve ${command}`);
  const nearest = nearestOf(command, COMMANDS);
  return new UsageError(`${command} is no command; the nearest is ${nearest}; see waitd --help`);
}

/** @throws {Error} where the text cannot be written; a reader that has ended, as in `waitd help | head`, has read enough */
function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.on('error', () => {});
    process.stdout.write(text, (error) => {
      if (error == null || isErrno(error, 'EPIPE')) resolve();
      else reject(new Error(`standard output cannot be written: ${sentenceOf(error)}`));
    });
  });
}

async function checkPolicy([what, file, ...rest]: string[]): Promise<void> {
  if (what !== 'check' || file === undefined || rest.length > 0) throw new UsageError('usage: waitd policy check FILE');
  const { readPolicy } = await import('./clients/policy-file.ts');
  const policy = readPolicy(file);
  const others = policy.default === null ? 'nobody else is let in' : 'others have the rights of the default';
  await print(`${file}: it is a policy, of ${policy.clients.size} clients; ${others}\n`);
}

async function makeToken([client, ...rest]: string[]): Promise<void> {
  if (client === undefined || !CLIENT_NAME.test(client) || rest.length > 0)
    throw new UsageError('usage: waitd token CLIENT, whose name may hold letters, digits and . _ : @ / -');
  const token = newToken();
  await print(`${token}\n`);
  process.stderr.write(
    `Its line in the tokens file; in a policy it is the second word:\n${client} sha256:${hashOf(token)}\n`,
  );
}

/** A person at a terminal is told how to call it, and a main program's output is its own; a pipe gets JSON. */
function loggerFor({ logLevel }: Config, isQuiet: boolean): Logger {
  return pino({ level: isQuiet && logLevel === 'info' ? 'warn' : logLevel }, writerTo(isQuiet ? 2 : 1));
}

/**
 * Where the audit is written. A file is the daemon's own to read, and opened anew by each image.
 * @throws {Error} where it cannot be opened
 */
function auditorFor({ audit }: Config, isQuiet: boolean): Logger | null {
  const where = audit ?? (isQuiet ? 'off' : 'stdout');
  if (where === 'off') return null;
  const fd = where === 'stdout' ? 1 : openAudit(where);
  // Without pino's own pid and hostname: a pid in the audit is that of a process.
  return pino({ base: null }, writerTo(fd));
}

/** A FIFO without a reader would hold the start up for as long as it has none; opened like this it is an error, ENXIO. */
function openAudit(path: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = constants;
  try {
    return openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
  } catch (error) {
    throw new Error(`--audit ${path} cannot be opened for writing: ${(error as NodeJS.ErrnoException).code}`);
  }
}

async function serve(config: Config): Promise<void> {
  const { closeInherited } = await import('./kernel/descriptor.ts');
  const { Service } = await import('./lifecycle/service.ts');
  closeInherited();
  // Never process.stdout: it would make the open file description nonblocking, which programs share that inherit it.
  const isTerminal = isatty(1);
  const isQuiet = isTerminal || config.main !== null;
  const service = await Service.start(config, loggerFor(config, isQuiet), () => auditorFor(config, isQuiet));
  if (isTerminal && config.main === null) writeSync(1, greeting(config, service.addresses));
}

/** Says whether `serve` would start, or else each reason why not. */
async function check(config: Config): Promise<void> {
  const { rehearse } = await import('./lifecycle/preparation.ts');
  const problems = await rehearse(config);
  for (const problem of problems) process.stderr.write(`waitd: ${problem}\n`);
  if (problems.length === 0) await print('waitd: it would start\n');
  process.exit(problems.length === 0 ? 0 : 1);
}

function greeting({ listen, stateDir, tokens, insecureNoAuth, tls }: Config, addresses: string[]): string {
  const body = `-H 'content-type: application/json' -d '{"spawn":{"argv":["sleep","5"]}}'`;
  // Whoever has signed the certificate, it can be trusted as it is.
  const scheme = tls === null ? 'http' : `--cacert ${tls.cert} https`;
  const token = tokens === undefined ? `$(cat ${join(stateDir, 'token')})` : '$TOKEN';
  const asking = listen.flatMap((place) => ('unix' in place && place.token === true ? [`unix:${place.unix}`] : []));
  const examples = addresses.map((address) =>
    address.startsWith('unix:')
      ? `  curl${asking.includes(address) ? ` -H "authorization: Bearer ${token}"` : ''} --unix-socket ${address.slice(5)} http://localhost/v1/handles ${body}`
      : `  curl${insecureNoAuth ? '' : ` -H "authorization: Bearer ${token}"`} ${scheme}://${address.slice(4)}/v1/handles ${body}`,
  );
  return [`waitd ${version} is ready. Start a process and hold it:`, ...examples, 'Ctrl-C stops the daemon.', ''].join(
    '\n',
  );
}
