import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { call, until } from '../support/caller-on-socket.ts';
import { Containers, hardened } from '../support/containers.ts';
import { commandLineOf, eventually } from '../support/harness.ts';

const containers = Containers.up(t);
const offline = '--network=none';

/** Starts a daemon in an unprivileged container, with its socket on the host. */
async function daemon(t: Test, name: string, ...args: string[]): Promise<{ name: string; socket: string }> {
  containers.start(t, name, ...hardened, offline, 'waitd:test', ...args);
  await eventually(() => containers.pidOf(name) > 0);
  const socket = `/proc/${containers.pidOf(name)}/root/run/waitd/waitd.sock`;
  await until(socket);
  return { name, socket };
}

t.test('a hardened container is healthy and does its work', async (t) => {
  const { name, socket } = await daemon(t, 'image-hardened');
  t.equal(containers.attempt('healthcheck', 'run', name).status, 0);
  const status = readFileSync(`/proc/${containers.pidOf(name)}/status`, 'utf8');
  t.match(status, /^Uid:\t1000\t1000\t1000\t1000$/m);
  t.match(status, /^CapEff:\t0000000000000000$/m);
  t.match(status, /^CapBnd:\t0000000000000000$/m);
  t.match(status, /^NoNewPrivs:\t1$/m);
  t.match(commandLineOf(containers.pidOf(name)), '--disable-sigusr1');
  const made = await call(socket, 'POST', '/v1/handles', {
    spawn: { argv: ['sh', '-c', 'echo out; touch /app/x; exit 7'], stdout: 'capture', stderr: 'stdout' },
  });
  t.equal(made.status, 201);
  const { id } = made.body;
  t.match((await call(socket, 'POST', `/v1/handles/${id}/waitid`)).body.outcome, { reason: 'exited', exitCode: 7 });
  t.match((await call(socket, 'GET', `/v1/handles/${id}/stdout`)).text, /^out\n.*Read-only file system/);
  t.equal((await call(socket, 'GET', '/v1/node')).body.subreaper, true);
});

/** Returns the states of all processes in a container. */
function statesIn(name: string): string[] {
  const proc = `/proc/${containers.pidOf(name)}/root/proc`;
  return readdirSync(proc)
    .filter((entry) => /^\d+$/.test(entry))
    .map((pid) => {
      try {
        return readFileSync(join(proc, pid, 'stat'), 'utf8').replace(/^.*\) /s, '')[0]!;
      } catch {
        return 'gone';
      }
    });
}

t.test('a thousand orphans are reaped, and no zombie stays', async (t) => {
  const { name, socket } = await daemon(t, 'image-orphans');
  const script =
    'i=0; while [ $i -lt 1000 ]; do (sleep 0.2 & exit 0); i=$((i + 1)); [ $((i % 100)) != 0 ] || sleep 0.1; done';
  const { id } = (await call(socket, 'POST', '/v1/handles', { spawn: { argv: ['bash', '-c', script] } })).body;
  t.match((await call(socket, 'POST', `/v1/handles/${id}/waitid`)).body.outcome, { exitCode: 0 });
  const reaped = async (): Promise<number> =>
    Number(/^waitd_orphans_reaped_total (\d+)$/m.exec((await call(socket, 'GET', '/metrics')).text)?.[1]);
  await eventually(async () => (await reaped()) >= 1000);
  t.equal(await reaped(), 1000);
  t.same(
    statesIn(name).filter((state) => state === 'Z'),
    [],
  );
});

t.test('a stop ends spawned processes within the grace, also one that ignores SIGTERM', async (t) => {
  const { name, socket } = await daemon(t, 'image-stop', 'serve', '--stop-children=1s');
  const make = (script: string) => call(socket, 'POST', '/v1/handles', { spawn: { argv: ['bash', '-c', script] } });
  await make('exec sleep 1000');
  await make('trap "" TERM; while :; do sleep 1; done');
  containers.podman('stop', '-t', '10', name);
  t.equal(
    containers.podman('inspect', '--format', '{{.State.ExitCode}}', name),
    '0',
    '137 would mean that it was killed',
  );
});

for (const [script, code] of [
  ['exit 0', 0],
  ['exit 7', 7],
  ['exit 137', 137],
  ['kill -KILL $$', 137],
  ['kill -TERM $$', 143],
] as const)
  t.test(`the init of one program ends as the program does: ${script}`, async (t) => {
    const main = ['waitd:test', 'serve', '--main', '--', 'sh', '-c', `echo said; ${script}`];
    t.same(await containers.finish(...hardened, offline, ...main), { code, output: 'said\n' });
  });

t.test('the init of one program forwards signals and reaps orphans', async (t) => {
  const script =
    'for name in HUP INT QUIT USR1 USR2 TERM; do trap "echo got $name" $name; done; trap "echo bye; exit 5" ALRM; (sleep 0.1 & exit 0); echo up; while :; do sleep 0.02; done';
  const name = containers.start(
    t,
    'image-main',
    ...hardened,
    offline,
    'waitd:test',
    'serve',
    '--main',
    '--',
    'bash',
    '-c',
    script,
  );
  const said = (text: string) => eventually(() => containers.podman('logs', name).split('\n').includes(text));
  await said('up');
  for (const signal of ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'TERM']) {
    containers.podman('kill', '-s', signal, name);
    await said(`got ${signal}`);
  }
  t.equal(containers.attempt('healthcheck', 'run', name).status, 0, 'the API is served beside it');
  await eventually(() => !statesIn(name).includes('Z'));
  containers.podman('kill', '-s', 'ALRM', name);
  t.equal(containers.podman('wait', name), '5');
});

t.test('a stop reaches the main program; if that ignores it, the runtime kills it, as without an init', async (t) => {
  const start = (name: string, script: string) =>
    containers.start(t, name, ...hardened, offline, 'waitd:test', 'serve', '--main', '--', 'bash', '-c', script);
  const polite = start('image-polite', 'trap "exit 3" TERM; echo up; while :; do sleep 0.02; done');
  await eventually(() => containers.podman('logs', polite).includes('up'));
  containers.podman('stop', '-t', '10', polite);
  t.equal(containers.podman('inspect', '--format', '{{.State.ExitCode}}', polite), '3');
});

t.test('each impossible setup gets a one-sentence error', async (t) => {
  for (const [args, code, sentence] of [
    [
      ['waitd:test', 'serve', '--main', '--', 'nothing-of-that-name'],
      127,
      /^waitd: nothing-of-that-name cannot be started: The program does not exist\.$/,
    ],
    [['waitd:test', 'serve', '--main', '--', '/etc/passwd'], 126, /^waitd: \/etc\/passwd cannot be started: /],
    [['waitd:test', 'serve', '--main'], 2, /--main needs a program/],
    [
      ['--tmpfs=/var/lib/waitd:mode=0755', 'waitd:test'],
      1,
      /^waitd: uid 1000 may not write to the state directory \/var\/lib\/waitd: /,
    ],
  ] as const) {
    const { code: found, output } = await containers.finish(...hardened, offline, ...args);
    t.equal(found, code, output);
    t.match(output.trim(), sentence);
    t.equal(output.trim().split('\n').length, 1);
  }
});

t.test('the image has labels and contains the expected files', (t) => {
  const labels = JSON.parse(containers.podman('inspect', '--format', '{{json .Config.Labels}}', 'waitd:test'));
  for (const name of ['title', 'description', 'licenses', 'version', 'revision', 'created', 'source'])
    t.ok(labels[`org.opencontainers.image.${name}`], name);
  const cat = (path: string): string => containers.podman('run', '--rm', '--entrypoint', 'cat', 'waitd:test', path);
  const sbom = JSON.parse(cat('/app/sbom.cdx.json'));
  t.match(sbom, { bomFormat: 'CycloneDX', specVersion: /^1\.\d$/ });
  const listed = new Set(
    sbom.components.map(({ name, version }: { name: string; version: string }) => `${name}@${version}`),
  );
  const lock = JSON.parse(readFileSync(join(import.meta.dirname, '../../package-lock.json'), 'utf8'));
  const installed = containers
    .podman(
      'run',
      '--rm',
      '--entrypoint',
      'find',
      'waitd:test',
      '/app/node_modules',
      '-name',
      'package.json',
      '-path',
      '*/node_modules/*',
    )
    .split('\n')
    .map((path) => path.slice('/app/'.length, -'/package.json'.length))
    .filter((path) => path in lock.packages);
  t.ok(installed.length > 50);
  for (const path of installed) {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    t.ok(listed.has(`${name}@${lock.packages[path].version}`), `${path} is in the bill of materials`);
  }
  t.match(cat('/app/docs/reference/errors.md'), /^## EAGAIN$/m, 'the text of /problems/EAGAIN');
  const unwanted = containers.podman(
    'run',
    '--rm',
    '--entrypoint',
    'sh',
    'waitd:test',
    '-c',
    'ls -d /usr/local/lib/node_modules /app/src /app/test /app/node_modules/typescript 2>/dev/null || true',
  );
  t.equal(unwanted, '', 'it contains no build tools');
  t.end();
});

t.test('two builds of the same sources are identical', (t) => {
  containers.build('waitd:again', '--no-cache', '--build-arg=REVISION=other');
  const sums = (image: string): string =>
    containers.podman(
      'run',
      '--rm',
      '--entrypoint',
      'sh',
      image,
      '-c',
      'find /app /usr/local/bin -type f -print0 | sort -z | xargs -0 sha256sum',
    );
  const first = sums('waitd:test').split('\n');
  t.ok(first.length > 500);
  t.same(sums('waitd:again').split('\n'), first);
  t.end();
});
