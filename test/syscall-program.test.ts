import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Architecture, listings, REPORT_SIZE } from '../src/kernel/syscall-interpreter.ts';
import { Label, REPORT, SyscallProgram } from '../src/kernel/syscall-program.ts';

const tools: Record<Architecture, { as: string; objcopy: string; syntax: string; run: string[] }> = {
  x64: { as: 'as', objcopy: 'objcopy', syntax: '.intel_syntax noprefix', run: [] },
  arm64: {
    as: 'aarch64-linux-gnu-as',
    objcopy: 'aarch64-linux-gnu-objcopy',
    syntax: '',
    run: ['qemu-aarch64-static'],
  },
};

const isThere = (tool: string): boolean => spawnSync(tool, ['--version']).error === undefined;

for (const architecture of Object.keys(listings) as Architecture[]) {
  const { as, objcopy, syntax, run } = tools[architecture];
  const own = process.arch === architecture;

  t.test(
    `the machine code of ${architecture} matches its source`,
    { skip: !isThere(as) && `${as} is missing` },
    async (t) => {
      const directory = t.testdir();
      const at = (name: string): string => join(directory, name);
      const source = listings[architecture].map(([, text]) => text.replace(': ', ':\n'));
      writeFileSync(at('code.s'), `${[syntax, ...source].join('\n')}\n`);
      execFileSync(as, ['-o', at('code.o'), at('code.s')]);
      execFileSync(objcopy, ['-O', 'binary', '-j', '.text', at('code.o'), at('code.bin')]);
      t.equal(readFileSync(at('code.bin'), 'hex'), listings[architecture].map(([code]) => code).join(''));
    },
  );

  const runner = own ? [] : run;
  t.test(
    `a program of ${architecture} branches on the results of its calls: positive, zero, failure`,
    { skip: !own && !isThere(run[0]!) && `${run[0]} is missing` },
    async (t) => {
      const program = new SyscallProgram(undefined, architecture);
      const failed = new Label();
      const zero = new Label();
      const wrong = new Label();
      program.call('getpid', [], { zero: wrong, failed: wrong });
      program.call('chdir', [program.text('/')], { next: wrong, zero, failed: wrong });
      program.place(zero);
      const open = program.call('openat', [-100, program.text('/no/such/file'), 0, 0], { next: wrong, failed });
      program.place(failed);
      program.call('write', [1, REPORT, REPORT_SIZE]);
      program.call('exit_group', [7]);
      program.place(wrong);
      program.call('exit_group', [8]);
      const file = join(t.testdir(), 'program');
      writeFileSync(file, program.file());
      chmodSync(file, 0o755);
      const { status, stdout } = spawnSync([...runner, file][0]!, [...runner, file].slice(1));
      t.equal(status, 7);
      t.same(program.reportIn(stdout), { result: -2, position: open });
    },
  );
}
