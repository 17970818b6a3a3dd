import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse, stringify } from 'yaml';
import { Containers } from '../support/containers.ts';
import { eventually, temporaryDirectory } from '../support/harness.ts';

const DEPLOY = join(import.meta.dirname, '../../deploy/kubernetes');
const ways = ['native', 'plain'] as const;

interface Manifest {
  apiVersion: string;
  kind: string;
  // biome-ignore lint/suspicious/noExplicitAny: the schema check covers the content
  [field: string]: any;
}

/** Returns the resources of a kustomization, in order. */
function manifestsOf(directory: string): Manifest[] {
  const { resources, ...rest } = parse(readFileSync(join(directory, 'kustomization.yaml'), 'utf8')) as {
    resources: string[];
  };
  if (Object.keys(rest).sort().join() !== 'apiVersion,kind')
    throw new Error(`${directory} has fields other than resources`);
  return resources.flatMap((resource) => {
    const path = join(directory, resource);
    return existsSync(join(path, 'kustomization.yaml'))
      ? manifestsOf(path)
      : [parse(readFileSync(path, 'utf8')) as Manifest];
  });
}

t.test('every manifest is listed in a kustomization and accepted by the API', (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'package.json'), '{"type": "module"}');
  execFileSync(
    'npm',
    ['install', '--silent', '--no-audit', '--no-fund', '--ignore-scripts', '@kubernetes/client-node@1'],
    {
      cwd: directory,
    },
  );
  const check = (name: string, { kind, ...manifest }: Manifest): string => {
    writeFileSync(
      join(directory, `${name}.ts`),
      `import type { V1${kind} } from '@kubernetes/client-node';\nexport const manifest: V1${kind} = ${JSON.stringify({ kind, ...manifest }, null, 2)};\n`,
    );
    const options = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'es2024',
      '--types',
      '',
    ];
    const { status, stdout, stderr } = spawnSync('env', ['-u', 'NODE_OPTIONS', 'tsc', ...options, `${name}.ts`], {
      cwd: directory,
      encoding: 'utf8',
    });
    return status === 0 ? '' : `${status} ${stdout}${stderr}`;
  };
  const named = ways.flatMap((way) => manifestsOf(join(DEPLOY, way)));
  for (const [index, manifest] of named.entries()) t.equal(check(`manifest${index}`, manifest), '', manifest.kind);
  const files = readdirSync(DEPLOY, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.yaml'));
  const found = files.map((file) => parse(readFileSync(join(DEPLOY, file), 'utf8')) as Manifest);
  const own = found.filter(({ kind }) => kind !== 'Kustomization');
  t.same(new Set(own.map((each) => JSON.stringify(each))), new Set(named.map((each) => JSON.stringify(each))));
  const wrong = structuredClone(named.find(({ kind }) => kind === 'Deployment')!);
  wrong.spec.template.spec.shareProcesNamespace = true;
  t.match(check('wrong', wrong), /shareProcesNamespace/, 'a misspelt field would be found');
  t.end();
});

t.test('both setups require no privileges', (t) => {
  for (const way of ways) {
    const { spec } = manifestsOf(join(DEPLOY, way)).find(({ kind }) => kind === 'Deployment')!.spec.template;
    t.equal(spec.shareProcessNamespace, true);
    t.notOk(spec.hostPID);
    const waitd = [...(spec.initContainers ?? []), ...spec.containers].find(({ name }) => name === 'waitd');
    t.equal(waitd.restartPolicy, way === 'native' ? 'Always' : undefined);
    t.match(waitd.securityContext, {
      runAsNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    });
    t.notOk(waitd.securityContext.capabilities.add);
    for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) t.ok(waitd[probe], probe);
    t.ok(waitd.resources.requests.memory && waitd.resources.limits.memory);
  }
  t.end();
});

t.test('the manifests run unchanged', async (t) => {
  const containers = Containers.up(t);
  for (const way of ways) await run(t, containers, way);
});

async function run(t: Test, containers: Containers, way: string): Promise<void> {
  const manifests = structuredClone(manifestsOf(join(DEPLOY, way)));
  const { spec } = manifests.find(({ kind }) => kind === 'Deployment')!.spec.template;
  // Adapts what podman lacks: it starts native sidecars one after another, as if they ended. There is also no registry
  // here.
  spec.containers = [...(spec.initContainers ?? []), ...spec.containers];
  delete spec.initContainers;
  for (const container of spec.containers) {
    delete container.restartPolicy;
    container.image = 'localhost/waitd:test';
    container.imagePullPolicy = 'Never';
  }
  const file = join(temporaryDirectory(t), 'pod.yaml');
  writeFileSync(file, manifests.map((manifest) => stringify(manifest, { aliasDuplicateObjects: false })).join('---\n'));
  t.teardown(() => {
    containers.attempt('play', 'kube', '--down', file);
  });
  containers.podman('play', 'kube', '--network=none', file);
  const names = containers.podman('ps', '--format', '{{.Names}}').split('\n');
  const [waitd, app] = ['waitd', 'app'].map(
    (name) => names.find((each) => each.startsWith('app-with-waitd') && each.endsWith(`-${name}`))!,
  ) as [string, string];
  await eventually(() => containers.attempt('exec', waitd, 'node', '/app/dist/src/health.js', 'ready').status === 0);
  t.equal(containers.attempt('healthcheck', 'run', waitd).status, 0, 'the liveness probe');

  // The app asks about itself, as its own user.
  const ask = (method: string, path: string, body?: unknown) => {
    const script = `
      const asked = require('node:http').request({ socketPath: '/run/waitd/waitd.sock', method: '${method}', path: '${path}',
        headers: { 'content-type': 'application/json' } }, (answer) => {
        let text = '';
        answer.on('data', (data) => { text += data; });
        answer.on('end', () => console.log(JSON.stringify({ status: answer.statusCode, body: JSON.parse(text || 'null') })));
      });
      asked.end(${body === undefined ? '' : JSON.stringify(JSON.stringify(body))});`;
    return JSON.parse(containers.podman('exec', app, 'node', '-e', script));
  };
  t.match(ask('GET', '/v1/node'), { status: 200 });
  t.match(ask('POST', '/v1/handles', { spawn: { argv: ['true'] } }), { status: 403 }, 'the policy is in place');
  containers.podman('exec', '-d', app, 'sh', '-c', 'sh -c "sleep 1000; exit 3" the-job');
  const opened = (): { status: number; body: { id: string; process: { pid: number } } } =>
    ask('POST', '/v1/handles', { open: { match: { argv: 'sh -c sleep 1000; exit 3 the-job' } } });
  let job = opened();
  while (job.status !== 201) job = opened();
  containers.podman('exec', app, 'sh', '-c', `kill -TERM ${job.body.process.pid}`);
  const { body } = ask('POST', '/v1/poll', { handles: [job.body.id], for: 'outcome' });
  t.match(body.ready, [{ outcome: { reason: 'killed', signal: 'SIGTERM' } }]);
  t.equal(
    containers.podman('inspect', '--format', '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}', waitd),
    'true 1000:2000',
  );
  containers.podman('play', 'kube', '--down', file);
}
