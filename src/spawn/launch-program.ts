import { constants } from 'node:fs';
import type { Resource } from '../../schemas/vocabulary.ts';
import { resourceNumber } from '../kernel/limits.ts';
import { REPORT_SIZE, type SyscallName } from '../kernel/syscall-interpreter.ts';
import { Label, type Operand, REPORT, SyscallProgram } from '../kernel/syscall-program.ts';
import type { Identity, Limits } from './exec-context.ts';
import type { Report } from './fork.ts';
import { CHILD_ORIGIN, REPLY_FD, TABLE_FD } from './fork-server-program.ts';

/** Everything that a child does before it executes its program. */
export interface LaunchPlan {
  /** The paths at which the program may be, in order. The first executable one counts. Relative paths are below `cwd`. */
  programs: readonly string[];
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  cwd: string;
  /** Whether a symbolic link in `cwd` is refused. */
  cwdLiterally: boolean;
  /** Files for descriptors 1 and 2, opened with the daemon's rights. */
  stdout: OutputFile | null;
  stderr: OutputFile | 'stdout' | null;
  /**
   * A session of its own, which may get the terminal at stdin; or a job in the daemon's session: in the foreground of the terminal at
   * stdin, or in the background.
   */
  session: 'own' | 'terminal' | 'background' | 'foreground';
  /** The path of `cgroup.procs` of the cgroup that it enters. */
  cgroup: string | null;
  limits: Limits;
  nice: number | undefined;
  umask: string | undefined;
  identity: Identity | null;
  noNewPrivileges: boolean;
}

export interface OutputFile {
  path: string;
  append: boolean;
  /** Whether a symbolic link in the path is refused. */
  literally: boolean;
}

/** The purpose of a call, for the problem that its failure makes. */
export type Step =
  | { of: 'child' }
  | { of: 'stdout' | 'stderr' }
  | { of: 'cgroup' }
  | { of: 'limit'; resource: Resource }
  | { of: 'nice' }
  | { of: 'user' }
  | { of: 'noNewPrivileges' }
  | { of: 'directory'; literally: boolean }
  | { of: 'search' }
  | { of: 'program' };

/** A step that failed, and the number of its errno. */
export interface Failed {
  step: Step;
  errno: number;
}

const AT_FDCWD = -100;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
const RESOLVE_NO_SYMLINKS = 0x04;
const F_SETFL = 4;
const X_OK = 1;
const TIOCSCTTY = 0x540e;
const TIOCSPGRP = 0x5410;
const PR_SET_NO_NEW_PRIVS = 38;
const SIG_SETMASK = 2;
const SIGSET_SIZE = 8;
const CAPABILITY_VERSION_3 = 0x2008_0522;
const NOTHING = 0;
const SELF = 0;

/** The lowest descriptor that is free while a child prepares. */
const FREE_FD = 3;

/** The table of system calls by which a child becomes a program. */
export class LaunchProgram extends SyscallProgram {
  readonly #steps = new Map<number, Step>();
  readonly #failed = new Label();

  /**
   * The order matters. Steps that need the daemon's rights come before these are dropped: output files, the cgroup, limits and nice.
   * Steps that need the rights of the program's user come after: the directory and the program itself.
   */
  constructor(plan: LaunchPlan) {
    super(CHILD_ORIGIN);
    const child: Step = { of: 'child' };
    this.#step(child, 'close', [TABLE_FD]);
    if (plan.session === 'background' || plan.session === 'foreground') this.#beJob(plan.session, child);
    else this.#step(child, 'setsid', []);
    if (plan.session === 'terminal') this.#step(child, 'ioctl', [0, TIOCSCTTY, 0]);
    if (plan.stdout !== null) this.#open('stdout', plan.stdout, plan.identity);
    if (plan.stderr === 'stdout') this.#step({ of: 'stderr' }, 'dup3', [1, 2, 0]);
    else if (plan.stderr !== null) this.#open('stderr', plan.stderr, plan.identity);
    if (plan.cgroup !== null) this.#enter(plan.cgroup);
    this.#bound(plan);
    if (plan.identity !== null) this.#become(plan.identity);
    if (plan.noNewPrivileges) this.#step({ of: 'noNewPrivileges' }, 'prctl', [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
    this.#enterDirectory(plan);
    this.#awaitRelease(child);
    const none = this.bytes(Buffer.alloc(SIGSET_SIZE));
    this.#step(child, 'rt_sigprocmask', [SIG_SETMASK, none, NOTHING, SIGSET_SIZE]);
    this.#execute(plan);
    this.place(this.#failed);
    this.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
    this.call('exit_group', [127]);
  }

  /** Returns the step that failed: of several, the one that execvp(3) would report; `null` if none failed. */
  failureIn(reports: readonly Report[]): Failed | null {
    const failed = reports.map(({ result, position }) => ({
      step: this.#steps.get(position) ?? ({ of: 'child' } as const),
      errno: -result,
    }));
    return failed.find(({ step }) => step.of !== 'search') ?? failed.find(isForbidden) ?? failed[0] ?? null;
  }

  #step(step: Step, name: SyscallName, operands: readonly Operand[]): void {
    this.#steps.set(this.call(name, operands, { failed: this.#failed }), step);
  }

  #beJob(session: 'background' | 'foreground', child: Step): void {
    this.#step(child, 'setpgid', [SELF, SELF]);
    if (session === 'background') return;
    // The report of getpid holds what TIOCSPGRP wants. SIGTTOU is blocked, as every signal is.
    this.call('getpid', []);
    this.call('ioctl', [0, TIOCSPGRP, REPORT]);
  }

  /** A file that is created belongs to the user that the program runs as, so that it can open its /dev/stdout. */
  #open(stream: 'stdout' | 'stderr', { path, append, literally }: OutputFile, identity: Identity | null): void {
    const step: Step = { of: stream };
    const { O_WRONLY, O_CREAT, O_NOCTTY, O_NONBLOCK, O_APPEND, O_TRUNC, O_EXCL } = constants;
    // Without O_NONBLOCK it would wait for a reader of a FIFO; with it that fails, ENXIO.
    const flags = O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | (append ? O_APPEND : O_TRUNC);
    const mode = 0o666;
    const name = this.text(path);
    const opening = (more: number): [SyscallName, Operand[]] =>
      literally
        ? ['openat2', [AT_FDCWD, name, this.words([flags | more, mode, RESOLVE_NO_SYMLINKS]), 24]]
        : ['openat', [AT_FDCWD, name, flags | more, mode]];
    const opened = new Label();
    if (identity !== null) {
      const there = new Label();
      this.call(...opening(O_EXCL), { failed: there });
      this.#steps.set(
        this.call('fchown', [FREE_FD, identity.uid, identity.gid], { next: opened, failed: this.#failed }),
        step,
      );
      this.place(there);
    }
    this.#step(step, ...opening(0));
    this.place(opened);
    this.#step(step, 'fcntl', [FREE_FD, F_SETFL, append ? O_APPEND : 0]);
    this.#step(step, 'dup3', [FREE_FD, stream === 'stdout' ? 1 : 2, 0]);
    this.#step(step, 'close', [FREE_FD]);
  }

  #enter(procs: string): void {
    const step: Step = { of: 'cgroup' };
    this.#step(step, 'openat', [AT_FDCWD, this.text(procs), constants.O_WRONLY, 0]);
    this.#step(step, 'write', [FREE_FD, this.text('0'), 1]); // 0 is the process that writes
    this.#step(step, 'close', [FREE_FD]);
  }

  #bound({ limits, nice, umask }: LaunchPlan): void {
    for (const [resource, { soft, hard }] of limits) {
      const wanted = Buffer.alloc(16);
      wanted.writeBigUInt64LE(soft, 0);
      wanted.writeBigUInt64LE(hard, 8);
      this.#step({ of: 'limit', resource }, 'prlimit64', [SELF, resourceNumber(resource), this.bytes(wanted), NOTHING]);
    }
    if (nice !== undefined) this.#step({ of: 'nice' }, 'setpriority', [0, SELF, nice]);
    if (umask !== undefined) this.call('umask', [Number.parseInt(umask, 8)]);
  }

  #become({ uid, gid, groups }: Identity): void {
    const step: Step = { of: 'user' };
    const list = Buffer.alloc(4 * groups.length);
    for (const [index, group] of groups.entries()) list.writeUInt32LE(group, 4 * index);
    this.#step(step, 'setgroups', [groups.length, this.bytes(list)]);
    this.#step(step, 'setresgid', [gid, gid, gid]);
    this.#step(step, 'setresuid', [uid, uid, uid]);
    // A daemon without uid 0 must not pass on its capabilities, above all not ambient ones (capabilities(7)).
    const header = Buffer.alloc(8);
    header.writeUInt32LE(CAPABILITY_VERSION_3);
    if (uid !== 0) this.#step(step, 'capset', [this.bytes(header), this.bytes(Buffer.alloc(24))]);
  }

  #enterDirectory({ cwd, cwdLiterally }: LaunchPlan): void {
    const step: Step = { of: 'directory', literally: cwdLiterally };
    if (!cwdLiterally) {
      this.#step(step, 'chdir', [this.text(cwd)]);
      return;
    }
    // The directory is checked and entered through one descriptor, so that it cannot be exchanged in between.
    const how = this.words([O_PATH | constants.O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS]);
    this.#step(step, 'openat2', [AT_FDCWD, this.text(cwd), how, 24]);
    this.#step(step, 'fchdir', [FREE_FD]);
    this.#step(step, 'close', [FREE_FD]);
  }

  /** Waits until the daemon has written what it starts. If the daemon dies before that, the child exits. */
  #awaitRelease(child: Step): void {
    const abandoned = new Label();
    const released = new Label();
    this.#steps.set(
      this.call('read', [REPLY_FD, this.bytes(Buffer.alloc(8)), 1], {
        next: released,
        zero: abandoned,
        failed: abandoned,
      }),
      child,
    );
    this.place(abandoned);
    this.call('exit_group', [127]);
    this.place(released);
  }

  /** Executes as execvp(3) does: if a program is missing or may not be executed, it tries the next directory. */
  #execute({ programs, argv, env }: LaunchPlan): void {
    const args = this.strings(argv);
    const environment = this.strings(Object.entries(env).map(([name, value]) => `${name}=${value}`));
    const paths = programs.map((path) => this.text(path));
    for (const path of paths) {
      const other = new Label();
      const candidate = new Label();
      if (paths.length > 1) {
        // A directory may be searched, which X_OK stands for, but not executed.
        this.call('openat', [AT_FDCWD, path, O_PATH | constants.O_DIRECTORY | O_CLOEXEC, 0], {
          next: other,
          failed: candidate,
        });
        this.place(candidate);
        this.call('faccessat', [AT_FDCWD, path, X_OK], { failed: other });
      }
      this.#step({ of: 'program' }, 'execve', [path, args, environment]);
      this.place(other);
    }
    // No program was found. The reasons are asked only now, since every report wakes the daemon.
    for (const path of paths) {
      const report = new Label();
      const next = new Label();
      this.#steps.set(this.call('faccessat', [AT_FDCWD, path, X_OK], { next, failed: report }), { of: 'search' });
      this.place(report);
      this.call('write', [REPLY_FD, REPORT, REPORT_SIZE]);
      this.place(next);
    }
    this.call('exit_group', [127]);
  }
}

const EACCES = 13;
const isForbidden = ({ errno }: Failed): boolean => errno === EACCES;
