import { strict as assert } from 'node:assert';
import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { call, until } from '../support/caller-on-socket.ts';
import { Containers, hardened } from '../support/containers.ts';
import { eventually, Socket, temporaryDirectory } from '../support/harness.ts';

const containers = Containers.up(t);
const DOCUMENT = join(import.meta.dirname, '../../docs/how-to/sidecar.md');
const DEBIAN = 'docker.io/library/debian:bookworm-slim';
const APP = '2000:2000';

interface Sidecar {
  user?: string;
  capabilities?: string[];
}

/** Starts a pod whose containers share a pid namespace, and in it a daemon with only the given privileges. */
async function pod(t: Test, name: string, { user = '1000:1000', capabilities = [] }: Sidecar = {}): Promise<string> {
  containers.podman('pod', 'create', '--name', name, '--share', 'pid,ipc,uts', '--network=none');
  t.teardown(() => {
    containers.attempt('pod', 'rm', '-f', '-t', '0', name);
  });
  const directory = temporaryDirectory(t);
  const uid = Number(user.split(':')[0]);
  const volumes = ['run', 'lib'].map((kind) => {
    mkdirSync(join(directory, kind));
    chownSync(join(directory, kind), uid, uid);
    return `--volume=${join(directory, kind)}:${kind === 'run' ? '/run' : '/var/lib'}/waitd`;
  });
  containers.podman(
    'run',
    '-d',
    '--pod',
    name,
    '--name',
    `${name}-waitd`,
    ...hardened,
    ...capabilities.map((capability) => `--cap-add=${capability}`),
    `--user=${user}`,
    ...volumes,
    'waitd:test',
    'serve',
    '--listen',
    'unix:/run/waitd/waitd.sock',
    '--state-dir',
    '/var/lib/waitd',
  );
  const socket = join(directory, 'run/waitd.sock');
  await until(socket);
  return socket;
}

function app(t: Test, pod: string, name: string, script: string, ...more: string[]): string {
  const container = `${pod}-${name}`;
  containers.start(t, container, '--pod', pod, `--user=${APP}`, ...more, DEBIAN, 'bash', '-c', script);
  return container;
}

const follow = (socket: string, query = ''): Socket =>
  new Socket(new WebSocket(`ws+unix:${socket}:/v1/events${query}`, ['waitd.v1']));

/** A shell ignores SIGQUIT. */
const signals = [
  'HUP',
  'INT',
  'ILL',
  'TRAP',
  'ABRT',
  'BUS',
  'FPE',
  'KILL',
  'USR1',
  'SEGV',
  'USR2',
  'PIPE',
  'ALRM',
  'TERM',
];

/** A hundred ways to exit. */
const endings = Array.from({ length: 100 }, (_, index) => {
  const signal = signals[index % signals.length];
  return index % 2 === 0
    ? { command: `exit ${index}`, outcome: { reason: 'exited', exitCode: index } }
    : { command: `ulimit -c 0; kill -${signal} $$`, outcome: { signal: `SIG${signal}` } };
});

t.test('an unprivileged sidecar reports how 100 of 100 processes of another container ended', async (t) => {
  const socket = await pod(t, 'outcomes');
  const watch = await call(socket, 'POST', '/v1/watches', { match: { argv: 'job-*' }, labels: { of: 'the app' } });
  t.match(watch, { status: 201, body: { by: 'scan' } });
  const events = follow(socket);
  await events.first(({ type }) => type === 'hello');
  // Each one waits for input, so that none ends before it is held.
  const jobs = endings.map(
    ({ command }, index) => `(exec -a job-${index} bash -c 'read -r line < /tmp/go; ${command}') &`,
  );
  const script = `mkfifo /tmp/go; ${jobs.join('\n')}\nexec 5<> /tmp/go; echo up; while [ ! -e /tmp/begin ]; do sleep 0.02; done; yes >&5 & wait; sleep 1000`;
  const container = app(t, 'outcomes', 'app', script, '--tmpfs=/tmp:mode=1777');
  await events.until(() => events.events.filter(({ event }) => event === 'opened').length === 100);
  const opened = events.events.filter(({ event }) => event === 'opened');
  t.equal(opened[0].watch, watch.body.id);
  const handles: string[] = opened.map(({ handle }) => handle);
  const polls = Promise.all(
    handles.map((handle) => call(socket, 'POST', '/v1/poll', { handles: [handle], for: 'outcome' })),
  );
  containers.podman('exec', container, 'touch', '/tmp/begin');
  await events.until(() => events.events.filter(({ event }) => event === 'reaped').length === 100);
  const polled = await polls;
  let right = 0;
  for (const [at, { handle, process }] of opened.entries()) {
    const { command, outcome } = endings[Number(/^job-(\d+)$/.exec(process.argv[0])![1])]!;
    const told = events.events.find((event) => event.event === 'reaped' && event.handle === handle)!.outcome;
    t.match(told, outcome, `${process.argv[0]}: ${command}`);
    t.same(polled[at]!.body.ready[0].outcome, told);
    right += 1;
  }
  t.equal(right, 100);
  events.close();
});

t.test('a restart of the app’s main process is reported as such', async (t) => {
  const socket = await pod(t, 'restarts');
  const container = app(t, 'restarts', 'app', 'exec -a the-app sleep 1000');
  const { body: watch } = await call(socket, 'POST', '/v1/watches', { match: { argv: 'the-app *' }, existing: true });
  const events = follow(socket, '?since=0');
  const first = await events.first(({ event }) => event === 'opened');
  containers.podman('restart', '-t', '0', container);
  const second = await events.first(({ event, handle }) => event === 'opened' && handle !== first.handle);
  t.match(await events.first(({ event }) => event === 'reaped'), {
    handle: first.handle,
    outcome: { reason: 'killed', signal: 'SIGKILL' },
  });
  t.equal(second.watch, watch.id);
  t.not(second.process.inode, first.process.inode);
  t.match((await call(socket, 'GET', `/v1/handles/${second.handle}`)).body, { state: 'running' });
  events.close();
});

const sidecars: [name: string, sidecar: Sidecar][] = [
  ['no capability', {}],
  ['the app’s own uid', { user: APP }],
  ['CAP_SYS_PTRACE', { capabilities: ['SYS_PTRACE'] }],
  ['CAP_KILL', { capabilities: ['KILL'] }],
];

/** The attempted operations, and whether each works. */
async function tried(socket: string, container: string): Promise<Record<string, boolean>> {
  const open = (match: object) => call(socket, 'POST', '/v1/handles', { open: { match } });
  const argv = 'the-app *';
  const byArgv = await open({ argv });
  const { id, process } = byArgv.body;
  const byPid = await call(socket, 'POST', '/v1/handles', { open: { pid: process?.pid, inode: process?.inode } });
  const cgroup = /^0::(.*)$/m.exec(readFileSync(`/proc/${containers.pidOf(container)}/cgroup`, 'utf8'))?.[1] ?? '/';
  const byCgroup = await open({ cgroup: `*${cgroup.split('/').at(-1)}*`, argv });
  const byExe = await open({ exe: '*/sleep', argv });
  const signalled = await call(socket, 'POST', `/v1/handles/${id}/signal`, { signal: 'SIGCONT' });
  const spawned = await call(socket, 'POST', '/v1/handles', { spawn: { argv: ['true'] } });
  const polled = call(socket, 'POST', '/v1/poll', { handles: [id], for: 'ended' });
  const known = call(socket, 'POST', '/v1/poll', { handles: [id], for: 'outcome' });
  const events = follow(socket, `?handle=${id}`);
  containers.podman('kill', '-s', 'KILL', container);
  const told = await events.first(({ event }) => event === 'reaped');
  events.close();
  return {
    'find a process by its arguments': byArgv.status === 201,
    'find it by its cgroup': byCgroup.status === 201,
    'find it by its program': byExe.status === 201,
    'open it by pid and inode': byPid.status === 201,
    'be told of its end, by poll': (await polled).body.ready.length === 1,
    'be told of its end, by event': told !== undefined,
    'learn its exit code or signal': (await known).body.ready[0]?.outcome?.signal === 'SIGKILL',
    'send it a signal': signalled.status === 204,
    'spawn and collect children of its own': spawned.status === 201,
  };
}

t.test('a sidecar has the abilities and requirements that the documentation states', async (t) => {
  const columns: Record<string, boolean>[] = [];
  for (const [index, [, sidecar]] of sidecars.entries()) {
    const socket = await pod(t, `table${index}`, sidecar);
    const container = app(t, `table${index}`, 'app', 'exec -a the-app sleep 1000');
    await eventually(
      async () =>
        (await call(socket, 'POST', '/v1/handles', { open: { match: { argv: 'the-app *' } } })).status === 201,
    );
    columns.push(await tried(socket, container));
    containers.podman('pod', 'rm', '-f', '-t', '0', `table${index}`);
  }
  const [first] = columns;
  assert.ok(first);
  const rows = Object.keys(first).map((what) => [what, ...columns.map((column) => (column[what] ? 'yes' : 'no'))]);
  const header = ['', ...sidecars.map(([name]) => name)];
  const widths = header.map((_, at) => Math.max(3, ...[header, ...rows].map((row) => row[at]!.length)));
  const line = (cells: string[]): string => `| ${cells.map((cell, at) => cell.padEnd(widths[at]!)).join(' | ')} |`;
  const table = [line(header), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
  const [before = '', rest = ''] = readFileSync(DOCUMENT, 'utf8').split(/(?<=<!-- measured -->\n)/);
  const [, after = ''] = rest.split(/(?=<!-- end -->)/);
  if (process.env.UPDATE_DOCS === '1') writeFileSync(DOCUMENT, `${before}\n${table}\n\n${after}`);
  t.ok(readFileSync(DOCUMENT, 'utf8').includes(table), table);
});
