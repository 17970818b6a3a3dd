import type { Match } from '../../schemas/match.ts';
import { Pattern } from './pattern.ts';

/** What a matcher looks at of a process. */
export interface Matchable {
  readonly pid: number;
  /** The arguments with a space between each. */
  readonly commandLine: string;
  /** In the unified hierarchy (cgroups(7)), as the daemon sees it. */
  readonly cgroup: string | null;
  /** The path of the program; `null` where it may not be read. */
  readonly exe: string | null;
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

  fits(facts: Matchable): boolean {
    return facts.pid !== process.pid && this.fitsBut(facts) && (this.#exe?.fits(facts.exe ?? '') ?? true);
  }

  /** The same without its program, which may be hidden from us. */
  fitsBut(facts: Matchable): boolean {
    return (this.#argv?.fits(facts.commandLine) ?? true) && (this.#cgroup?.fits(facts.cgroup ?? '') ?? true);
  }
}
