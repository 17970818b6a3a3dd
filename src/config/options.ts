import { parseArgs } from 'node:util';
import { distance } from 'fastest-levenshtein';

/** A command line or an environment that does not fit: said in one line, exit code 2. */
export class UsageError extends Error {}

/** One setting: a flag, and the same by environment. */
interface Option {
  flag: string;
  /** What stands for its value in the help; none for a switch. */
  value?: string;
  repeatable?: true;
  /** It may be given without its value, and then with `=` alone. */
  optional?: true;
  help: string;
}

/** Every flag of `serve`. The environment variable is WAITD_ and the flag in capitals; repeatable ones are split at commas. */
export const options = [
  {
    flag: 'listen',
    value: 'unix:PATH[,token] | tcp:HOST:PORT | fd:NAME[,token]',
    repeatable: true,
    help: 'where to serve; port 0 picks one, fd is a socket that the service manager passed, and with ,token a Unix socket asks for one (default: those that it passed; else tcp:127.0.0.1:7411 and waitd/waitd.sock in /run for root, in $XDG_RUNTIME_DIR for others; without that, waitd.sock in the state directory)',
  },
  {
    flag: 'socket-mode',
    value: 'MODE',
    help: 'of Unix sockets, octal; others than the daemon’s own user need a policy as well (default 0600)',
  },
  { flag: 'socket-group', value: 'GROUP', help: 'of Unix sockets, name or gid; their mode is 0660 then' },
  {
    flag: 'state-dir',
    value: 'DIR',
    help: 'the journal, captured output and the first token, 0700 (default: /var/lib/waitd for root, else $XDG_STATE_HOME/waitd or ~/.local/state/waitd)',
  },
  { flag: 'tokens', value: 'FILE', help: 'bearer tokens, a line "client-name token" each; mode 0600' },
  {
    flag: 'policy',
    value: 'FILE',
    help: 'who may do what, YAML or JSON; read again when it changes (default: whoever is let in may do everything)',
  },
  {
    flag: 'audit',
    value: 'FILE | stdout | off',
    help: 'a line for every spawn, open, signal, close and refusal (default stdout, at a terminal and with --main off)',
  },
  { flag: 'insecure-no-auth', help: 'serve TCP without credentials, to anybody who can connect' },
  { flag: 'tls-cert', value: 'FILE', help: 'TCP speaks TLS with this certificate and its chain, PEM; needs --tls-key' },
  { flag: 'tls-key', value: 'FILE', help: 'the key of the certificate, PEM, mode 0600' },
  {
    flag: 'tls-client-ca',
    value: 'FILE',
    help: 'clients may prove who they are by certificates that these authorities have signed, PEM; needs --tls-cert',
  },
  {
    flag: 'allowed-host',
    value: 'NAME',
    repeatable: true,
    help: 'a Host that TCP clients may name, beside IP addresses and localhost',
  },
  {
    flag: 'allowed-origin',
    value: 'ORIGIN',
    repeatable: true,
    help: 'whose web pages may call, such as https://dash.example, beside those that are served from here',
  },
  {
    flag: 'cgroup',
    value: 'DIR',
    help: 'a cgroup (v2) of the daemon’s alone, below which those that a spawn asks for are made',
  },
  { flag: 'no-subreaper', help: 'leave orphans of spawned processes to init' },
  { flag: 'socket-buffer', value: 'BYTES', help: 'what may wait for one slow subscriber (default 1048576)' },
  {
    flag: 'keep-collected',
    value: 'DURATION',
    help: 'how long a handle is kept once its status was collected (default 1h)',
  },
  { flag: 'keep-uncollected', value: 'DURATION', help: 'how long one whose status nobody collected (default 24h)' },
  { flag: 'keep-events', value: 'DURATION', help: 'how long events are kept (default 24h)' },
  { flag: 'max-events', value: 'N', help: 'how many events are kept at most (default 1000000)' },
  {
    flag: 'max-keys',
    value: 'N',
    help: 'how many idempotency keys are kept at most, half of them of one client (default 1000000)',
  },
  {
    flag: 'max-output',
    value: 'BYTES',
    help: 'how much of each captured stream is kept, the newest (default 67108864)',
  },
  {
    flag: 'stop-children',
    value: 'GRACE',
    optional: true,
    help: 'when stopping, terminate what was spawned: SIGTERM, and SIGKILL after GRACE (default 10s)',
  },
  {
    flag: 'main',
    help: 'run one program, given after --, as a container’s init does: signals go to it, and the daemon ends as it ends',
  },
  { flag: 'check', help: 'only find out whether it would start; exit code 0 if so' },
  { flag: 'log-level', value: 'LEVEL', help: 'trace, debug, info, warn, error, fatal or silent (default info)' },
] as const satisfies readonly Option[];

export type Flag = (typeof options)[number]['flag'];
export type RawConfig = Partial<Record<Flag, string | string[] | boolean>> & { command?: string[] };

const all: readonly Option[] = options;

/**
 * Reads flags, and the environment where a flag is missing.
 * @throws {UsageError} for an unknown flag (with the nearest right one), a missing value, a stray word
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
      if (given.command === undefined) throw new UsageError(`${token.value} is not expected here; see --help`);
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

export const environmentName = (flag: string): string => `WAITD_${flag.replaceAll('-', '_').toUpperCase()}`;

function unknownFlag(name: string): UsageError {
  const nearest = nearestOf(
    name,
    all.map(({ flag }) => `--${flag}`),
  );
  return new UsageError(`${name} is no option of serve; the nearest is ${nearest}; see waitd --help`);
}

/** Returns the candidate with the smallest edit distance from what was typed. */
export function nearestOf(typed: string, candidates: readonly string[]): string {
  return candidates.reduce((best, each) => (distance(typed, each) < distance(typed, best) ? each : best));
}

/** The help text of all flags. */
export function optionsHelp(): string {
  const placeholder = ({ value, optional }: Option): string => (optional ? `[=${value}]` : value ? ` ${value}` : '');
  return all.map((option) => `  --${option.flag}${placeholder(option)}\n      ${option.help}`).join('\n');
}
