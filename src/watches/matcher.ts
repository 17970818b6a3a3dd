import type { Facts } from './facts.ts';
import { Pattern } from './pattern.ts';

/** Which processes are meant, each part a {@link Pattern}; all that are given must fit. */
export interface Match {
  /** Its path in the unified hierarchy (cgroups(7)), as the daemon sees it. */
  cgroup?: string | undefined;
  /** The path of the program. */
  exe?: string | undefined;
  /** The arguments with a space between each. */
  argv?: string | undefined;
}

/** Tells whether a process is meant. The daemon itself never is. */
export class Matcher {
  readonly #cgroup: Pattern | null;
  readonly #exe: Pattern | null;
  readonly #argv: Pattern | null;

  constructor({ cgroup, exe, argv }: Match) {
    const pattern = (text: string | undefined): Pattern | null => (text === undefined ? null : new Pattern(text));
    this.#cgroup = pattern(cgroup);
    this.#exe = pattern(exe);
    this.#argv = pattern(argv);
  }

  get needsExe(): boolean {
    return this.#exe !== null;
  }

  fits(facts: Facts): boolean {
    return facts.pid !== process.pid && this.fitsBut(facts) && (this.#exe?.fits(facts.exe ?? '') ?? true);
  }

  /** The same without its program, which may be hidden from us. */
  fitsBut(facts: Facts): boolean {
    return (this.#argv?.fits(facts.commandLine) ?? true) && (this.#cgroup?.fits(facts.cgroup ?? '') ?? true);
  }
}
