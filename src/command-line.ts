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
import { forwarded, releaseSignalsExcept, served } from './lifecycle/early-signals.ts';
import { version } from './version.ts';

const COMMANDS = ['serve', 'policy check', 'token', 'help', 'version'];

const HELP = `waitd ${version}: serves waitid(2) over HTTP and WebSocket

Usage: waitd serve [OPTIONS] [--main -- CMD ARG…]
       waitd policy check FILE    validates a policy file and lists its errors
       waitd token CLIENT         creates a token, and prints its line for the --tokens file
       waitd help, version        prints this text (also -h, --help) or the version (also -V, --version)

SIGHUP upgrades the daemon in place: it executes its command again and keeps all state. At a terminal SIGHUP stops the daemon.
SIGTERM and SIGINT stop it.

${optionsHelp()}

Each option can also be set in the environment, for example --state-dir as WAITD_STATE_DIR.
Exit codes: 0 stopped on request, 1 failed or could not start, 2 wrong usage. With --main: the program's exit code, or 128 plus the
number of the signal that killed it; 126 if it cannot be executed, 127 if it is not found.
`;

/** Runs the command. On an error, prints one line to stderr and exits with the error's code. */
export async function run(argv: string[]): Promise<void> {
  try {
    endShield();
    // The previous image blocked these, and Node.js itself blocks SIGUSR1 for --disable-sigusr1. All have handlers by now.
    unblock(forwarded);
    await runCommand(argv);
  } catch (error) {
    process.stderr.write(`waitd: ${sentenceOf(error)}\n`);
    process.exit(exitCodeOf(error));
  }
}

/** Returns the exit code of an error. Errors of the main program carry their own. */
function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return 2;
  return error instanceof Error && 'exitCode' in error ? Number(error.exitCode) : 1;
}

async function runCommand([command, ...argv]: string[]): Promise<void> {
  if (command !== 'serve') await releaseSignalsExcept([]);
  if (isVersion(command)) return print(`${version}\n`);
  // The arguments after `--` belong to the main program.
  const own = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length);
  if (command === undefined || isHelp(command) || own.some((word) => word === '-h' || word === '--help'))
    return print(HELP);
  if (command === 'policy') return checkPolicy(argv);
  if (command === 'token') return makeToken(argv);
  if (command !== 'serve') throw unknownCommand(command);
  // Each command loads only the modules that it needs.
  const { readConfig } = await import('./config/config.ts');
  const config = readConfig(argv, process.env);
  if (config.check) await releaseSignalsExcept([]);
  else if (config.main === null) await releaseSignalsExcept(served);
  if (config.check) await check(config);
  else await serve(config);
}

const isHelp = (command: string): boolean => ['help', '-h', '--help'].includes(command);
const isVersion = (command: string | undefined): boolean => ['version', '-V', '--version'].includes(command ?? '');

function unknownCommand(command: string): UsageError {
  if (command.startsWith('-')) return new UsageError(`an option must follow a command: waitd serve ${command}`);
  const nearest = nearestOf(command, COMMANDS);
  return new UsageError(`unknown command ${command}; did you mean ${nearest}? See waitd --help`);
}

/** Prints to stdout. Ignores EPIPE, as in `waitd help | head`. @throws {Error} if the text cannot be written */
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
  const others = policy.default === null ? 'other clients are refused' : 'other clients have the default rights';
  await print(`${file}: valid policy, clients: ${policy.clients.size}; ${others}\n`);
}

async function makeToken([client, ...rest]: string[]): Promise<void> {
  if (client === undefined || !CLIENT_NAME.test(client) || rest.length > 0)
    throw new UsageError('usage: waitd token CLIENT, a name of letters, digits and . _ : @ / -');
  const token = newToken();
  await print(`${token}\n`);
  process.stderr.write(
    `Add this line to the tokens file, or the hash to the tokens of the client in the policy:\n${client} sha256:${hashOf(token)}\n`,
  );
}

/** Makes the logger. It is quiet at a terminal, which gets a greeting, and with a main program, which owns stdout. */
function loggerFor({ logLevel }: Config, isQuiet: boolean): Logger {
  return pino({ level: isQuiet && logLevel === 'info' ? 'warn' : logLevel }, writerTo(isQuiet ? 2 : 1));
}

/**
 * Makes the logger of the audit. Each image of the daemon opens the file again, with mode 0600.
 * @returns `null` if the audit is off
 * @throws {Error} if the file cannot be opened
 */
function auditorFor({ audit }: Config, isQuiet: boolean): Logger | null {
  const where = audit ?? (isQuiet ? 'off' : 'stdout');
  if (where === 'off') return null;
  const fd = where === 'stdout' ? 1 : openAudit(where);
  // Omits pino's own pid and hostname, because `pid` in the audit is that of a process.
  return pino({ base: null }, writerTo(fd));
}

/** Opens the audit file. O_NONBLOCK makes a FIFO without a reader fail with ENXIO instead of blocking the start. */
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
  // Never process.stdout, which sets O_NONBLOCK on the open file description that inheriting programs share.
  const isTerminal = isatty(1);
  const isQuiet = isTerminal || config.main !== null;
  const service = await Service.start(config, loggerFor(config, isQuiet), () => auditorFor(config, isQuiet));
  if (isTerminal && config.main === null) writeSync(1, greeting(config, service.addresses));
}

/** Checks whether `serve` would start, and prints each reason if it would not. */
async function check(config: Config): Promise<void> {
  const { rehearse } = await import('./lifecycle/preparation.ts');
  const problems = await rehearse(config);
  for (const problem of problems) process.stderr.write(`waitd: ${problem}\n`);
  if (problems.length === 0) await print('waitd: check passed\n');
  process.exit(problems.length === 0 ? 0 : 1);
}

function greeting({ listen, stateDir, tokens, insecureNoAuth, tls }: Config, addresses: string[]): string {
  const body = `-H 'content-type: application/json' -d '{"spawn":{"argv":["sleep","5"]}}'`;
  // --cacert with the certificate itself works for any issuer.
  const scheme = tls === null ? 'http' : `--cacert ${tls.cert} https`;
  const token = tokens === undefined ? `$(cat ${join(stateDir, 'token')})` : '$TOKEN';
  const requireToken = listen.flatMap((place) =>
    'unix' in place && place.token === true ? [`unix:${place.unix}`] : [],
  );
  const examples = addresses.map((address) =>
    address.startsWith('unix:')
      ? `  curl${requireToken.includes(address) ? ` -H "authorization: Bearer ${token}"` : ''} --unix-socket ${address.slice(5)} http://localhost/v1/handles ${body}`
      : `  curl${insecureNoAuth ? '' : ` -H "authorization: Bearer ${token}"`} ${scheme}://${address.slice(4)}/v1/handles ${body}`,
  );
  return [`waitd ${version} is ready. To spawn a process:`, ...examples, 'Ctrl-C stops the daemon.', ''].join('\n');
}
