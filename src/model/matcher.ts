import type { Match } from '../../schemas/match.ts';
import { Pattern } from './pattern.ts';

/** The facts of a process that a matcher compares. */
export interface Matchable {
  readonly pid: number;
  /** The arguments with a space between each. */
  readonly commandLine: string;
  /** The path in the unified hierarchy (cgroups(7)), as the daemon sees it. */
  readonly cgroup: string | null;
  /** The path of the program; `null` if the daemon may not read it. */
  readonly exe: string | null;
}

/** Decides whether a process matches. The daemon itself never does. */
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

  fits(facts: Matchable): boolean {
    return facts.pid !== process.pid && this.fitsBut(facts) && (this.#exe?.fits(facts.exe ?? '') ?? true);
  }

  /** Does the same without the program, which the daemon may not be allowed to read. */
  fitsBut(facts: Matchable): boolean {
    return (this.#argv?.fits(facts.commandLine) ?? true) && (this.#cgroup?.fits(facts.cgroup ?? '') ?? true);
  }
}
