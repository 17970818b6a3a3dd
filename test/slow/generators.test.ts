import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { rolldown } from 'rolldown';
import t, { type Test } from 'tap';
import { Daemon, temporaryDirectory } from '../support/harness.ts';
import { type Found, type Generator, generators } from './generators/programs.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '../..');

/** The linters of OpenAPI documents, and a compiler for the clients: openapi-typescript needs one with an API. */
const linters = { '@stoplight/spectral-cli': '6.16.3', '@redocly/cli': '2.77.0' };
const compiler = { typescript: '5.9.3' };

/** What they must not report: a path that is a WebSocket alone has no success but 101. */
const exceptions = {
  '.spectral.yaml': {
    extends: ['spectral:oas'],
    overrides: [
      {
        files: ['openapi.json#/paths/~1v1~1handles~1%7Bid%7D~1attach'],
        rules: { 'operation-success-response': 'off' },
      },
    ],
  },
  '.redocly.lint-ignore.yaml': {
    'openapi.json': { 'operation-2xx-response': ['#/paths/~1v1~1handles~1{id}~1attach/get/responses'] },
  },
};

const tsconfig = {
  compilerOptions: {
    target: 'es2024',
    lib: ['es2024', 'dom', 'dom.iterable'],
    module: 'preserve',
    strict: true,
    noUncheckedIndexedAccess: true,
    noImplicitReturns: true,
    noImplicitOverride: true,
    noFallthroughCasesInSwitch: true,
    typeRoots: [join(root, 'node_modules/@types')],
    types: ['node'],
    skipLibCheck: true,
    noEmit: true,
  },
  include: ['src'],
};

const daemon = await Daemon.start(t);
const document = (await daemon.get('/openapi.json')).text;

/** Runs a package's program with the same Node.js. @returns its output @throws an error with the output if it fails */
async function program(directory: string, command: readonly string[]): Promise<string> {
  const [name = '', ...args] = command;
  const path = join(directory, 'node_modules/.bin', name);
  try {
    const { stdout, stderr } = await run(process.execPath, [path, ...args], { cwd: directory, maxBuffer: 2 ** 26 });
    return stdout + stderr;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${command.join(' ')}: ${stdout}${stderr}`);
  }
}

/**
 * Creates a directory with the document and some packages that are not dependencies of the project.
 * @returns the reason instead if the registry does not answer
 */
async function install(t: Test, packages: Readonly<Record<string, string>>): Promise<string | { reason: string }> {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  writeFileSync(join(directory, 'openapi.json'), document);
  const names = Object.entries(packages).map(([name, version]) => `${name}@${version}`);
  try {
    await run('npm', ['view', names[0]!, 'version'], { cwd: directory, timeout: 60_000 });
  } catch {
    return { reason: 'the registry cannot be reached' };
  }
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--save-exact'];
  const path = `${join(process.execPath, '..')}:${process.env.PATH}`;
  await run('npm', ['install', ...options, ...names], { cwd: directory, env: { ...process.env, PATH: path } });
  return directory;
}

t.test('Spectral and Redocly report nothing', async (t) => {
  const directory = await install(t, linters);
  if (typeof directory !== 'string') {
    t.plan(0, directory.reason);
    return;
  }
  for (const [name, content] of Object.entries(exceptions))
    writeFileSync(join(directory, name), JSON.stringify(content));
  const spectral = ['spectral', 'lint', 'openapi.json', '--ruleset', '.spectral.yaml', '--fail-severity', 'hint'];
  t.match(await program(directory, spectral), /No results/);
  const redocly = ['redocly', 'lint', '--extends', 'recommended-strict', 'openapi.json'];
  t.match(await program(directory, redocly), /is valid/);
});

for (const [name, generator] of Object.entries(generators))
  t.test(`a client of ${name} compiles, spawns, waits, and reads events and output`, async (t) => {
    const directory = await install(t, { ...generator.packages, ...compiler });
    if (typeof directory !== 'string') {
      t.plan(0, directory.reason);
      return;
    }
    await generate(directory, generator);
    t.equal(await program(directory, ['tsc', '--project', '.']), '', 'the compiler reports nothing');
    t.same(await found(directory), { relation: 'child', exitCode: 3, events: ['opened', 'exited'], output: 'hello\n' });
  });

async function generate(directory: string, { command, files = {}, program: text }: Generator): Promise<void> {
  mkdirSync(join(directory, 'src'));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
  await program(directory, command);
  writeFileSync(join(directory, 'src/program.ts'), text);
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(tsconfig));
}

/** Runs the program against the daemon, and returns its output. */
async function found(directory: string): Promise<Found> {
  const file = join(directory, 'program.mjs');
  const bundle = await rolldown({ input: join(directory, 'src/program.ts'), platform: 'node' });
  await bundle.write({ file, codeSplitting: false });
  await bundle.close();
  const env = { BASE: `http://127.0.0.1:${daemon.port}`, TOKEN: daemon.token };
  const { stdout } = await run(process.execPath, [file], { env });
  return JSON.parse(stdout);
}

t.teardown(() => daemon.stop());
