import { parseArgs } from 'node:util';
import { distance } from 'fastest-levenshtein';

/** The error of a wrong command line or environment. Its message is one line, and the exit code is 2. */
export class UsageError extends Error {}

/** One setting: a flag and an environment variable. */
interface Option {
  flag: string;
  /** The placeholder of its value in the help text; a switch has none. */
  value?: string;
  repeatable?: true;
  /** Whether its value may be omitted; a value must then follow `=`. */
  optional?: true;
  help: string;
}

/** Every flag of `serve`. Its environment variable is WAITD_ and the flag in capitals. Repeatable values are separated by commas there. */
export const options = [
  {
    flag: 'listen',
    value: 'unix:PATH[,token] | tcp:HOST:PORT | fd:NAME[,token]',
    repeatable: true,
    help: 'address to listen on; port 0 selects a free port, fd is a socket from the service manager, and ,token makes a Unix socket require a token (default: the sockets from the service manager, else tcp:127.0.0.1:7411 and waitd/waitd.sock in /run for root, in $XDG_RUNTIME_DIR for other users, else waitd.sock in the state directory)',
  },
  {
    flag: 'socket-mode',
    value: 'MODE',
    help: 'mode of Unix sockets, octal; users other than the daemon’s own also need a policy (default 0600)',
  },
  { flag: 'socket-group', value: 'GROUP', help: 'group of Unix sockets, name or gid; makes their default mode 0660' },
  {
    flag: 'state-dir',
    value: 'DIR',
    help: 'directory for the journal, captured output and the first token, mode 0700 (default: /var/lib/waitd for root, else $XDG_STATE_HOME/waitd or ~/.local/state/waitd)',
  },
  {
    flag: 'tokens',
    value: 'FILE',
    help: 'file of bearer tokens, mode 0600, with lines of the form "client-name token"',
  },
  {
    flag: 'policy',
    value: 'FILE',
    help: 'file with the rights and quotas of clients, YAML or JSON; reloaded when it changes (default: every authenticated client has all rights)',
  },
  {
    flag: 'audit',
    value: 'FILE | stdout | off',
    help: 'target of the audit, one line for every spawn, open, signal, close and refusal (default stdout; off at a terminal and with --main)',
  },
  { flag: 'insecure-no-auth', help: 'serve TCP clients without credentials' },
  { flag: 'tls-cert', value: 'FILE', help: 'certificate and chain for TLS on TCP addresses, PEM; needs --tls-key' },
  { flag: 'tls-key', value: 'FILE', help: 'private key of the certificate, PEM, mode 0600' },
  {
    flag: 'tls-client-ca',
    value: 'FILE',
    help: 'certificate authorities of client certificates, PEM; needs --tls-cert',
  },
  {
    flag: 'allowed-host',
    value: 'NAME',
    repeatable: true,
    help: 'host name accepted in the Host header on TCP, besides IP addresses and localhost',
  },
  {
    flag: 'allowed-origin',
    value: 'ORIGIN',
    repeatable: true,
    help: 'origin whose web pages may call the API, such as https://dash.example, besides the daemon’s own pages',
  },
  {
    flag: 'cgroup',
    value: 'DIR',
    help: 'parent cgroup (v2) for spawned processes; must belong to the daemon alone',
  },
  { flag: 'no-subreaper', help: 'leave orphans of spawned processes to init' },
  {
    flag: 'socket-buffer',
    value: 'BYTES',
    help: 'maximum data that may wait for one slow subscriber (default 1048576)',
  },
  {
    flag: 'keep-collected',
    value: 'DURATION',
    help: 'retention of a handle after its status was collected (default 1h)',
  },
  {
    flag: 'keep-uncollected',
    value: 'DURATION',
    help: 'retention of a handle whose status was not collected (default 24h)',
  },
  { flag: 'keep-events', value: 'DURATION', help: 'retention of events (default 24h)' },
  { flag: 'max-events', value: 'N', help: 'maximum number of stored events (default 1000000)' },
  {
    flag: 'max-keys',
    value: 'N',
    help: 'maximum number of stored idempotency keys; one client may use half (default 1000000)',
  },
  {
    flag: 'max-output',
    value: 'BYTES',
    help: 'maximum size of each captured stream; the oldest bytes are dropped (default 67108864)',
  },
  {
    flag: 'stop-children',
    value: 'GRACE',
    optional: true,
    help: 'on stop, terminate spawned processes: SIGTERM, then SIGKILL after GRACE (default 10s)',
  },
  {
    flag: 'main',
    help: 'run one program, given after --, as the init of a container: forward signals to it, and exit with its exit code',
  },
  { flag: 'check', help: 'only check whether the daemon would start; exit code 0 if so' },
  { flag: 'log-level', value: 'LEVEL', help: 'trace, debug, info, warn, error, fatal or silent (default info)' },
] as const satisfies readonly Option[];

export type Flag = (typeof options)[number]['flag'];
export type RawConfig = Partial<Record<Flag, string | string[] | boolean>> & { command?: string[] };

const all: readonly Option[] = options;

/**
 * Reads the flags, and the environment for those that are missing.
 * @throws {UsageError} for an unknown flag, with the nearest known one; for a missing value; for an unexpected argument
 */
export function readOptions(argv: readonly string[], environment: NodeJS.ProcessEnv): RawConfig {
  const config: RawConfig = { ...fromEnvironment(environment) };
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      all.map(
        ({ flag, value, optional }) =>
          [flag, { type: value === undefined || optional ? 'boolean' : 'string', multiple: true }] as const,
      ),
    ),
    strict: false,
    tokens: true,
  });
  const given: RawConfig = {};
  for (const token of tokens) {
    if (token.kind === 'option-terminator') given.command = [];
    else if (token.kind === 'positional') {
      if (given.command === undefined) throw new UsageError(`unexpected argument ${token.value}; see --help`);
      given.command.push(token.value);
    }
    if (token.kind !== 'option') continue;
    const option = all.find(({ flag }) => flag === token.name);
    if (option === undefined) throw unknownFlag(token.rawName);
    set(given, option, token.value, `--${option.flag}`);
  }
  return { ...config, ...given };
}

function set(config: RawConfig, option: Option, value: string | undefined, name: string): void {
  const flag = option.flag as Flag;
  if (option.value === undefined && value !== undefined) throw new UsageError(`${name} takes no value`);
  if (option.value === undefined || (option.optional && value === undefined)) {
    config[flag] = true;
    return;
  }
  if (value === undefined || value === '') throw new UsageError(`${name} needs a value: ${option.value}`);
  if (option.repeatable) config[flag] = [...((config[flag] as string[] | undefined) ?? []), value];
  else if (config[flag] !== undefined) throw new UsageError(`${name} is given twice`);
  else config[flag] = value;
}

function fromEnvironment(environment: NodeJS.ProcessEnv): RawConfig {
  const config: RawConfig = {};
  for (const option of all) {
    const name = environmentName(option.flag);
    const value = environment[name];
    if (value === undefined || value === '') continue;
    const isSwitch = ['0', '1', 'true', 'false'].includes(value);
    if (option.value === undefined || (option.optional && isSwitch)) {
      if (!isSwitch) throw new UsageError(`${name} must be 1, 0, true or false`);
      if (value === '1' || value === 'true') config[option.flag as Flag] = true;
    } else
      for (const part of option.repeatable ? value.split(/,(?!token(?:,|$))/) : [value])
        set(config, option, part.trim(), name);
  }
  return config;
}

/** Returns the name of a flag's environment variable. */
export const environmentName = (flag: string): string => `WAITD_${flag.replaceAll('-', '_').toUpperCase()}`;

function unknownFlag(name: string): UsageError {
  const nearest = nearestOf(
    name,
    all.map(({ flag }) => `--${flag}`),
  );
  return new UsageError(`unknown option ${name}; did you mean ${nearest}? See waitd --help`);
}

/** Returns the candidate with the smallest edit distance from the typed text. */
export function nearestOf(typed: string, candidates: readonly string[]): string {
  return candidates.reduce((best, each) => (distance(typed, each) < distance(typed, best) ? each : best));
}

/** Returns the help text of all flags. */
export function optionsHelp(): string {
  const placeholder = ({ value, optional }: Option): string => (optional ? `[=${value}]` : value ? ` ${value}` : '');
  return all.map((option) => `  --${option.flag}${placeholder(option)}\n      ${option.help}`).join('\n');
}
