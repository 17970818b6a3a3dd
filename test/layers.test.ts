import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import t from 'tap';

const root = join(import.meta.dirname, '..');

/** From the ground up: a folder imports only from lines above its own, and from itself. */
const layers = [
  'schemas',
  'src/kernel',
  'src/errors',
  'src/files',
  'src/cgroups',
  'src/model',
  'src/clients',
  'src/journal',
  'src/output',
  'src/idempotency',
  'src/processes',
  'src/input',
  'src/terminals',
  'src/deadlines',
  'src/feed',
  'src/settlement',
  'src/spawn',
  'src/waits',
  'src/handles',
  'src/signals',
  'src/watches',
  'src/config',
  'src/api',
  'src/http',
  'src/version.ts',
  'src/health.ts',
  'src/daemon.ts',
  'src/metrics.ts',
  'routes',
  'src/app.ts',
  'src/lifecycle',
  'src/command-line.ts',
  'src/main.ts',
];

/** Packages and Node.js modules that are restricted to some folders. */
const packages: Record<string, RegExp> = {
  koffi: /^src\/kernel\//,
  zod: /^(schemas|routes)\/|^src\/(clients|config|http|journal|lifecycle)\//,
  fastify: /^(routes|src\/http)\/|^src\/app\.ts/,
  ws: /^(routes|src\/http)\//,
  yaml: /^src\/clients\//,
  pino: /^src\/(app|command-line)\.ts|^src\/(http|lifecycle)\//,
  'prom-client': /^src\/metrics\.ts/,
  'node:sqlite': /^src\/journal\//,
  'node:child_process': /^src\/lifecycle\//,
  'node:http': /^(routes|src\/http)\/|^src\/(app|health)\.ts/,
};

/** Contract files that import nothing outside it, not even zod. */
const PLAIN = /^schemas\/(vocabulary|signal-names|address|filled)\.ts$/;

interface Import {
  file: string;
  /** A path from the root, or a module name. */
  target: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/^(?:import|export) .*?from '([^']+)'|^import '([^']+)'|import\('([^']+)'\)/gms)].map(
    ([, from, bare, lazy]) => {
      const name = (from ?? bare ?? lazy)!;
      return { file, target: name.startsWith('.') ? relative(root, join(root, dirname(file), name)) : name };
    },
  );
}

const layerOf = (path: string): number => layers.findIndex((layer) => path === layer || path.startsWith(`${layer}/`));

const files = globSync('{schemas,src,routes}/**/*.ts', { cwd: root });
const imports = files.flatMap(importsOf);

t.test('each file has a layer, and imports only from lower ones', (t) => {
  t.ok(imports.length > 500, 'imports were found');
  t.same(
    files.filter((file) => layerOf(file) === -1),
    [],
  );
  const upwards = imports.filter(
    ({ file, target }) => /\.ts$/.test(target) && (layerOf(target) === -1 || layerOf(target) > layerOf(file)),
  );
  t.same(
    upwards.map(({ file, target }) => `${file} imports ${target}`),
    [],
  );
  t.end();
});

t.test('no file imports itself through others', (t) => {
  const edges = new Map<string, string[]>(files.map((file) => [file, []]));
  for (const { file, target } of imports) edges.get(file)!.push(target);
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: string[]): void => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(' → '));
    if (path.includes(file) || done.has(file)) return;
    for (const target of edges.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  t.same(circles, []);
  t.end();
});

t.test('a package is imported only in its own folders', (t) => {
  const outside = imports.filter(({ file, target }) => {
    const name = target.startsWith('node:') ? target : target.split('/').slice(0, target.startsWith('@') ? 2 : 1)[0]!;
    if (/\.ts$/.test(target)) return false;
    if (PLAIN.test(file)) return true;
    if (file.startsWith('schemas/')) return name !== 'zod';
    return name in packages && !packages[name]!.test(file);
  });
  t.same(
    outside.map(({ file, target }) => `${file} imports ${target}`),
    [],
  );
  t.end();
});
