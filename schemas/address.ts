/** Where a daemon listens and keeps its state unless an option says otherwise. */
export interface DefaultAddresses {
  stateDir: string;
  socket: string;
  tcp: { host: string; port: number };
}

/** The environment and the user of the process that serves, or that looks for a daemon. */
export interface Whose {
  env: Readonly<Record<string, string | undefined>>;
  uid: number;
  /** The home directory that the password database names, where HOME is not set. */
  home?: string | undefined;
}

/**
 * Returns the defaults of `serve`, which are also where a client of the same user looks.
 *
 * Root has `/run/waitd/waitd.sock` and `/var/lib/waitd`. Other users have `$XDG_RUNTIME_DIR/waitd/waitd.sock` and
 * `$XDG_STATE_HOME/waitd` (by default `~/.local/state/waitd`). A user without XDG_RUNTIME_DIR, as under `su -`, cron and CI, has
 * `waitd.sock` in the state directory. A relative XDG path is ignored, as the XDG Base Directory Specification asks.
 * @param stateDir the state directory that an option names; by default that of WAITD_STATE_DIR
 * @throws {Error} where the user has no home directory, so that there is no state directory; the sentence names the cure
 */
export function defaultAddresses(whose: Whose, stateDir = whose.env.WAITD_STATE_DIR || undefined): DefaultAddresses {
  const { env, uid } = whose;
  const state = stateDir ?? (uid === 0 ? '/var/lib/waitd' : below(stateHome(whose), 'waitd'));
  const runtime = uid === 0 ? '/run' : absolute(env.XDG_RUNTIME_DIR);
  return {
    stateDir: state,
    socket: runtime === undefined ? below(state, 'waitd.sock') : below(runtime, 'waitd/waitd.sock'),
    tcp: { host: '127.0.0.1', port: 7411 },
  };
}

function stateHome({ env, uid, home }: Whose): string {
  const stated = absolute(env.XDG_STATE_HOME);
  if (stated !== undefined) return stated;
  const directory = absolute(env.HOME) ?? absolute(home);
  if (directory !== undefined) return below(directory, '.local/state');
  throw new Error(`uid ${uid} has no home directory and HOME is not set: give --state-dir DIR`);
}

const below = (directory: string, path: string): string => `${directory.replace(/\/+$/, '')}/${path}`;

const absolute = (path: string | undefined): string | undefined => (path?.startsWith('/') ? path : undefined);
