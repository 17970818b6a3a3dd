import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { errnos, eventTypes, problemErrnos, resources } from '../schemas/vocabulary.ts';
import { environmentName, options } from '../src/config/options.ts';
import { probe, since } from '../src/kernel/features.ts';
import { isRoot } from './support/command.ts';
import { type DocumentShell, freePort, isAsShown, isRun, runBlocks } from './support/document-shell.ts';
import { anchorsOf, blocksOf, document, documents, linksOf } from './support/documents.ts';
import { Daemon, temporaryDirectory } from './support/harness.ts';

/** Command blocks that are not run here: the document, the first line and the reason. */
const NOT_RUN: Record<string, string> = {
  'README.md: npm ci && npm start     # serves a Unix socket and 127.0.0.1:7411': '.ci/run runs it before this test',
  'CONTRIBUTING.md: npm ci': 'it runs this test',
  'docs/explanation/performance.md: npm run bench                # builds the C floors, runs everything 5 times, prints medians and spreads; --help lists the options':
    'it takes half an hour',
  'docs/how-to/container.md: docker build -t waitd:0.1.0 --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) --build-arg CREATED=$(git log -1 --format=%cI) .':
    'test:image builds and runs the image this way',
  'docs/how-to/container.md: docker run --read-only my-image serve --main -- /srv/app --port 80':
    'test:image runs programs this way',
  'docs/how-to/proxies.md: waitd serve --listen unix:/run/waitd/waitd.sock --listen unix:/run/waitd/proxy.sock,token --socket-group www-data --allowed-origin https://waitd.example':
    'test:proxies starts it this way for each proxy',
  'docs/how-to/proxies.md: systemctl daemon-reload': 'test:proxies does it where systemd runs',
  'docs/how-to/sidecar.md: kubectl apply -k deploy/kubernetes/native   # an init container with restartPolicy: Always, Kubernetes 1.29 or later':
    'it needs a cluster; test:kubernetes checks the manifests',
  'docs/how-to/systemd.md: npm install -g ./waitd-0.1.0.tgz': 'test:systemd does it where systemd runs',
  'docs/tutorial.md: npm ci && npm pack && npm install -g ./waitd-0.1.0.tgz': 'test:package installs it this way',
  'docs/tutorial.md: npm ci && export PATH=$PWD/node_modules/node/bin:$PATH': 'it runs this test and test:package',
};

/** Flags of other programs. */
const NOT_OURS = new Set([
  'cpu-prof',
  'disable-sigusr',
  'inspect',
  'markdown',
  'figures',
  'no-start',
  'uninstall',
  'cap-add',
]);

const ROOT = join(import.meta.dirname, '..');

/** A shell for documents whose reader has a system daemon. */
async function besideDaemon(t: Test): Promise<DocumentShell> {
  const daemon = await Daemon.start(t);
  const instead = {
    '/run/waitd/waitd.sock': daemon.socket,
    '/var/lib/waitd': join(daemon.directory, 'state'),
    ':7411': `:${daemon.port}`,
  };
  return { directory: temporaryDirectory(t), instead };
}

/** A shell for documents that start their own daemon. */
async function alone(t: Test): Promise<DocumentShell> {
  return { directory: temporaryDirectory(t), instead: { ':7411': `:${await freePort()}` } };
}

const own = async (t: Test): Promise<DocumentShell> => {
  const { directory, instead } = await alone(t);
  return {
    directory,
    instead: { ...instead, '/run/waitd/waitd.sock': join(directory, 's'), '/var/lib/waitd': join(directory, 'state') },
  };
};

const shells: Record<string, (t: Test) => Promise<DocumentShell>> = {
  'docs/tutorial.md': async (t) => {
    const shell = await alone(t);
    mkdirSync(join(shell.directory, 'runner'));
    return { ...shell, instead: { ...shell.instead, 'mkdir runner && ': '' } };
  },
  'docs/how-to/backups.md': own,
  'docs/how-to/policy.md': own,
  'docs/how-to/tls.md': own,
  'docs/how-to/upgrades.md': own,
};

/** Documents whose commands need more than every machine has: the reason why they are not run here, or false. */
const skips: Record<string, string | false> = {
  'docs/how-to/users-and-limits.md': isRoot ? false : 'only root starts programs as others',
  ...Object.fromEntries(
    ['docs/tutorial.md', 'docs/how-to/sidecar.md', 'docs/how-to/watches.md'].map((path) => [
      path,
      probe().exitStatus ? false : 'this kernel does not tell how a foreign process ended',
    ]),
  ),
};

for (const each of documents()) {
  const blocks = blocksOf(each);
  // The README has its own test.
  if (each.path === 'README.md' || !blocks.some(isRun)) continue;
  const skip = skips[each.path] ?? false;
  t.test(`the commands of ${each.path} print the documented output`, { skip }, async (t) => {
    const printed = runBlocks(t, blocks, await (shells[each.path] ?? besideDaemon)(t));
    for (const [at, { output }] of blocks.filter(isRun).entries())
      if (output !== null) t.ok(isAsShown(printed[at]!, output), `${output}\n\nwas: ${printed[at]}`);
  });
}

t.test('every block that is not run has a reason', async (t) => {
  const found = documents().flatMap((each) =>
    blocksOf(each)
      .filter(({ info }) => info.includes('no-run'))
      .map(({ code }) => `${each.path}: ${code.split('\n', 1)[0]}`),
  );
  t.same(found.sort(), Object.keys(NOT_RUN).sort());
});

t.test('every link leads to an existing document and heading', async (t) => {
  for (const each of documents())
    for (const { link, to, anchor } of linksOf(each)) {
      t.ok(existsSync(join(ROOT, to)), `${each.path}: ${link}`);
      if (anchor !== null) t.ok(anchorsOf(document(to)).has(anchor), `${each.path}: ${link}`);
    }
});

const namesIn = (path: string, pattern: RegExp): string[] =>
  [...document(path).text.matchAll(pattern)].map(([, name]) => name!).sort();

const section = (text: string, errno: string): string =>
  new RegExp(`^## ${errno}\\n[\\s\\S]*?(?=^## |(?![\\s\\S]))`, 'm').exec(text)?.[0] ?? '';

t.test('the reference lists every option with its variable, and no others', async (t) => {
  const rows = [...document('docs/reference/options.md').text.matchAll(/^\| `--([a-z-]+)[^|]*\| `(WAITD_\w+)`/gm)];
  t.same(
    rows.map(([, flag, variable]) => [flag, variable]).sort(),
    options.map(({ flag }) => [flag, environmentName(flag)]).sort(),
  );
});

t.test('every errno has a section with its cause and cure, and there are no others', async (t) => {
  const path = 'docs/reference/errors.md';
  t.same(namesIn(path, /^## (E[A-Z0-9]+)$/gm), [...problemErrnos].sort());
  for (const errno of problemErrnos)
    t.match(
      section(document(path).text, errno),
      /^## \w+\n\n.* Status \d{3}.*\n\n\*\*Cause\.\*\* [\s\S]*\n\n\*\*Cure\.\*\* /,
    );
});

t.test('the section of every errno begins with its title and its usual status', async (t) => {
  for (const errno of problemErrnos) {
    const [status, title] = errnos[errno];
    t.match(section(document('docs/reference/errors.md').text, errno), `${title}. Status ${status}`);
  }
});

t.test('/problems/ERRNO answers with the section of the reference, without credentials', async (t) => {
  const daemon = await Daemon.start(t);
  const { text } = document('docs/reference/errors.md');
  const anonymous = { tcp: true, headers: { authorization: '' } };
  for (const errno of problemErrnos) {
    const answer = await daemon.get(`/problems/${errno}`, anonymous);
    t.match(answer, { status: 200, headers: { 'content-type': 'text/markdown; charset=utf-8' } });
    t.equal(answer.text, section(text, errno));
  }
  const { body } = await daemon.get('/v1/handles/h_nosuch');
  t.match((await daemon.get(body.type)).text, /^## EBADF\n/);
  for (const unknown of ['ENOSUCH', 'eagain', 'toString', '..%2f..%2fpackage.json'])
    t.match(await daemon.get(`/problems/${unknown}`, anonymous), { status: 404, body: { errno: 'EPROTO' } }, unknown);
  t.equal(await daemon.stop(), 0);
});

t.test('the reference lists every event type, and no others', async (t) => {
  const [types = ''] = /## Event types[\s\S]*?\n## /.exec(document('docs/reference/events.md').text) ?? [];
  t.same([...types.matchAll(/^\| `(\w+)`/gm)].map(([, type]) => type).sort(), [...eventTypes].sort());
});

t.test('the reference lists every metric with its type, and no others', async (t) => {
  const daemon = await Daemon.start(t);
  const { text } = await daemon.get('/metrics');
  const told = [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].map(([, name, type]) => `${name} ${type}`);
  const rows = [...document('docs/reference/metrics.md').text.matchAll(/^\| `(\w+)` +\| (\w+)/gm)];
  t.same(rows.map(([, name, type]) => `${name} ${type}`).sort(), told.sort());
  t.equal(await daemon.stop(), 0);
});

t.test('the reference lists every right, quota, path and limit', async (t) => {
  const daemon = await Daemon.start(t);
  const { paths } = (await daemon.get('/openapi.json')).body;
  const api = document('docs/reference/api.md').text;
  for (const path of Object.keys(paths)) t.ok(api.includes(path) || api.includes(path.replace(/^.*\}/, '')), path);
  for (const resource of resources) t.ok(api.includes(`\`${resource}\``), resource);
  const kernels = document('docs/reference/limits.md').text;
  for (const version of Object.values(since)) t.match(kernels, `| ${version.padEnd(5)} | `);
  t.equal(await daemon.stop(), 0);
});

t.test('every flag of waitd in a document exists', async (t) => {
  const flags = new Set<string>(['help', 'version', ...options.map(({ flag }) => flag)]);
  for (const each of documents())
    for (const [, flag = ''] of each.text.matchAll(/`--([a-z][a-z-]+)/g))
      t.ok(flags.has(flag) || NOT_OURS.has(flag), `${each.path}: --${flag}`);
});

t.test('the architecture lists every source folder with its layer', async (t) => {
  const { text } = document('docs/explanation/architecture.md');
  const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  for (const { name } of folders) t.ok(text.includes(`\`src/${name}\``), name);
});
