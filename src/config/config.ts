import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { type DefaultAddresses, defaultAddresses } from '../../schemas/address.ts';
import type { Keep } from '../handles/retention.ts';
import { findGroup } from '../kernel/users.ts';
import { environmentName, type RawConfig, readOptions, UsageError } from './options.ts';

/**
 * An address to listen on; `passed` is the name of a socket from the service manager. With `token`, a Unix socket's peer must send a
 * token, and its uid does not authenticate it.
 */
export type Address =
  | { unix: string; token?: true }
  | { host: string; port: number }
  | { passed: string; token?: true };

/** The paths of the PEM files. */
export interface TlsFiles {
  cert: string;
  key: string;
  clientCa: string | undefined;
}

/** The mode and group of Unix sockets, which decide who may connect. */
export interface SocketAccess {
  mode: number;
  /** `undefined` keeps the daemon's own group. */
  gid: number | undefined;
}

/** The settings of the daemon. */
export interface Config {
  listen: Address[];
  /** Whether `--listen` was given. */
  listenGiven: boolean;
  socket: SocketAccess;
  stateDir: string;
  /** The directory for marks of the journals' progress, outside their state directories; `null` for no marks. */
  marks: string | null;
  tokens: string | undefined;
  /** The path of the policy file. */
  policy: string | undefined;
  /** The target of the audit: a path, `stdout` or `off`; `undefined` selects the default. */
  audit: string | undefined;
  insecureNoAuth: boolean;
  /** The files for TLS on TCP addresses; `null` without TLS. */
  tls: TlsFiles | null;
  allowedHosts: string[];
  allowedOrigins: string[];
  /** The path of the parent cgroup for spawned processes. */
  cgroup: string | undefined;
  subreaper: boolean;
  /** The bytes that may wait for one slow subscriber. */
  socketBuffer: number;
  maxEvents: number;
  /** The maximum number of stored idempotency keys. */
  maxKeys: number;
  keep: Keep;
  /** The bytes that are stored of each captured stream. */
  maxOutput: number;
  /** The time in milliseconds that spawned processes get to end when the daemon stops; `null` leaves them running. */
  stopChildrenMs: number | null;
  /** The main program with its arguments; `null` without `--main`. */
  main: [program: string, ...args: string[]] | null;
  /** Whether to only check if the daemon would start. */
  check: boolean;
  logLevel: string;
}

/** sun_path is 108 bytes with its NUL (unix(7)). */
const LONGEST_SOCKET_PATH = 107;

const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,12}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.int().min(min).max(max));

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Parses a duration such as `90s` or `24h` to milliseconds. */
const duration = (min: number) =>
  z
    .string()
    .regex(/^\d{1,9}(ms|s|m|h|d)$/, 'must be a duration such as 500ms, 90s, 10m, 24h or 7d')
    .transform((text) => Number.parseInt(text, 10) * units[text.replace(/^\d+/, '') as keyof typeof units])
    .pipe(z.number().min(min, `must be at least ${min}ms`).max(1e13));

const DEFAULT_STOP_GRACE_MS = 10_000;

/**
 * Reads the daemon's settings from its command line and environment.
 * @throws {UsageError} with one line that names the flag
 */
export function readConfig(argv: readonly string[], environment: NodeJS.ProcessEnv): Config {
  const raw = readOptions(argv, environment);
  const check = <T>(flag: keyof RawConfig, schema: z.ZodType<T>): T => {
    const result = schema.safeParse(raw[flag]);
    if (result.success) return result.data;
    const given = raw[flag] === undefined ? '' : ` (given: ${String(raw[flag])})`;
    throw new UsageError(`--${flag} or ${environmentName(flag)}: ${result.error.issues[0]!.message}${given}`);
  };
  const { stateDir, socket, tcp } = defaults(environment, check('state-dir', absolute.optional()));
  return {
    listen: check('listen', z.array(address).optional()) ?? [{ unix: socket }, tcp],
    listenGiven: raw.listen !== undefined,
    socket: socketAccess(check('socket-mode', octal.optional()), check('socket-group', group.optional())),
    stateDir,
    marks: marksDirectory(process.getuid!() === 0, environment),
    tokens: check('tokens', z.string().optional()),
    policy: check(
      'policy',
      z
        .string()
        .transform((path) => resolve(path))
        .optional(),
    ),
    audit: check('audit', z.string().optional()),
    insecureNoAuth: raw['insecure-no-auth'] === true,
    tls: tlsFiles({
      cert: check('tls-cert', z.string().optional()),
      key: check('tls-key', z.string().optional()),
      clientCa: check('tls-client-ca', z.string().optional()),
    }),
    allowedHosts: check('allowed-host', z.array(z.string().toLowerCase()).default([])),
    allowedOrigins: check('allowed-origin', z.array(origin).default([])),
    cgroup: check('cgroup', cgroupDirectory.optional()),
    subreaper: raw['no-subreaper'] !== true,
    socketBuffer: check('socket-buffer', wholeNumber(4096, 2 ** 30).default(2 ** 20)),
    maxEvents: check('max-events', wholeNumber(1000, 1e9).default(1_000_000)),
    maxKeys: check('max-keys', wholeNumber(2, 1e9).default(1_000_000)),
    keep: {
      collected: check('keep-collected', duration(100).default(units.h)),
      uncollected: check('keep-uncollected', duration(100).default(units.d)),
      events: check('keep-events', duration(100).default(units.d)),
    },
    maxOutput: check('max-output', wholeNumber(65536, 1e12).default(64 * 2 ** 20)),
    stopChildrenMs:
      raw['stop-children'] === true ? DEFAULT_STOP_GRACE_MS : (check('stop-children', duration(0).optional()) ?? null),
    main: mainProgram(raw),
    check: raw.check === true,
    logLevel: check(
      'log-level',
      z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
    ),
  };
}

function mainProgram({ main, command = [], check }: RawConfig): Config['main'] {
  const [program, ...args] = command;
  if (main === true && program !== undefined) return [program, ...args];
  if (main === true && check !== true)
    throw new UsageError('--main needs a program after --: serve --main -- CMD ARG…');
  if (program !== undefined) throw new UsageError(`unexpected argument ${program} without --main; see --help`);
  return null;
}

const octal = z
  .string()
  .regex(/^0?[0-7]{3}$/, 'must be octal, such as 0660')
  .transform((text) => Number.parseInt(text, 8));

const group = z.string().transform((text, context): number => {
  const gid = /^\d{1,9}$/.test(text) ? Number(text) : findGroup(text);
  if (gid === null) context.addIssue({ code: 'custom', message: 'is not a group of this machine' });
  return gid ?? z.NEVER;
});

function socketAccess(mode: number | undefined, gid: number | undefined): SocketAccess {
  return { mode: mode ?? (gid === undefined ? 0o600 : 0o660), gid };
}

function tlsFiles({ cert, key, clientCa }: { [File in keyof TlsFiles]: string | undefined }): TlsFiles | null {
  if (cert !== undefined && key !== undefined) return { cert, key, clientCa };
  if (cert !== undefined) throw new UsageError('--tls-cert needs --tls-key');
  if (key !== undefined) throw new UsageError('--tls-key needs --tls-cert');
  if (clientCa !== undefined) throw new UsageError('--tls-client-ca needs --tls-cert and --tls-key');
  return null;
}

/** An origin in the form of RFC 6454: scheme and host in lower case, without the default port and without a path. */
const origin = z
  .string()
  .toLowerCase()
  .regex(/^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@,*]+$/, 'must be an origin such as https://dash.example')
  .transform((text) => (/^https?:/.test(text) && URL.canParse(text) ? new URL(text).origin : text));

const cgroupDirectory = z
  .string()
  .refine(
    (path) => path.startsWith('/') && existsSync(join(path, 'cgroup.procs')),
    'must be the path of a cgroup (v2)',
  );

const absolute = z.string().startsWith('/', 'must be an absolute path');

const TOKEN_SUFFIX = ',token';

const address = z.string().transform((text, context): Address => {
  const fail = (message: string): never => {
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  };
  const token = text.endsWith(TOKEN_SUFFIX) ? { token: true as const } : {};
  const place = 'token' in token ? text.slice(0, -TOKEN_SUFFIX.length) : text;
  if (place.startsWith('unix:')) {
    const unix = place.slice('unix:'.length);
    if (!unix.startsWith('/')) return fail('a Unix socket needs an absolute path: unix:/run/waitd/waitd.sock');
    if (Buffer.byteLength(unix) > LONGEST_SOCKET_PATH)
      return fail(`a Unix socket's path has at most ${LONGEST_SOCKET_PATH} bytes`);
    return { unix, ...token };
  }
  if (place.startsWith('fd:')) {
    const passed = place.slice('fd:'.length);
    // sd_listen_fds_with_names(3)
    return /^[\x21-\x39\x3b-\x7e]{1,255}$/.test(passed)
      ? { passed, ...token }
      : fail('must be fd: followed by a name without spaces');
  }
  const tcp = /^tcp:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(tcp?.[3]);
  if (tcp === null || port > 65535) return fail('must be unix:/path, tcp:host:port or fd:name');
  return { host: (tcp[1] ?? tcp[2])!, port };
});

/** Returns a directory that a reboot empties: systemd's RuntimeDirectory= of the unit, else one below the usual runtime directory. */
function marksDirectory(root: boolean, environment: NodeJS.ProcessEnv): string | null {
  const { RUNTIME_DIRECTORY: unit, XDG_RUNTIME_DIR: user } = environment;
  if (unit) return unit.split(':')[0]!;
  if (user) return join(user, 'waitd-journals');
  return root ? '/run/waitd-journals' : null;
}

/** Returns the home directory, or `undefined` if the user has no entry in the password database, as often in a container. */
function homeDirectory(): string | undefined {
  try {
    return userInfo().homedir;
  } catch {
    return undefined;
  }
}

function defaults(env: NodeJS.ProcessEnv, stateDir: string | undefined): DefaultAddresses {
  try {
    return defaultAddresses({ env, uid: process.getuid!(), home: homeDirectory() }, stateDir);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}
