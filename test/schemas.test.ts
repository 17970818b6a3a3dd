import { globSync } from 'node:fs';
import { join } from 'node:path';
import { rolldown } from 'rolldown';
import t from 'tap';
import { z } from 'zod';
import type { Filled } from '../schemas/filled.ts';
import { HandleView } from '../schemas/handles.ts';
import { WaitidResult } from '../schemas/waits.ts';
import { WatchView } from '../schemas/watches.ts';
import { viewOfHandle } from '../src/model/views.ts';
import { viewOfWatch } from '../src/model/watch.ts';
import { bodyOf } from '../src/waits/waitid.ts';

const root = join(import.meta.dirname, '..');

/** A function that makes an answer of a schema, with every field. */
type MakerOf<S extends z.ZodType> = (...given: never[]) => Filled<z.output<S>>;

const added = { added: z.string().optional() };
const LongerHandle = HandleView.extend(added);
const LongerWatch = WatchView.extend(added);
const LongerResult = WaitidResult.extend(added);

/** These lines are the test: the compiler reports each one without an error. */
export const makers = [
  viewOfHandle satisfies MakerOf<typeof HandleView>,
  viewOfWatch satisfies MakerOf<typeof WatchView>,
  bodyOf satisfies MakerOf<typeof WaitidResult>,
  // @ts-expect-error an optional field that only the schema has
  viewOfHandle satisfies MakerOf<typeof LongerHandle>,
  // @ts-expect-error
  viewOfWatch satisfies MakerOf<typeof LongerWatch>,
  // @ts-expect-error
  bodyOf satisfies MakerOf<typeof LongerResult>,
];

const view = {} as Filled<z.output<typeof HandleView>>;
// @ts-expect-error an optional field that only the code makes
export const longer: Filled<z.output<typeof HandleView>> = { ...view, added: undefined };

t.test('schemas/ can be bundled for a browser, and needs no module of Node.js', async (t) => {
  const files = globSync('schemas/**/*.ts', { cwd: root });
  t.ok(files.length > 15);
  const warnings: string[] = [];
  const bundle = await rolldown({
    input: files.map((file) => join(root, file)),
    platform: 'browser',
    onwarn: ({ message = '' }) => warnings.push(message),
  });
  const { output } = await bundle.generate({ format: 'esm' });
  await bundle.close();
  const chunks = output.filter((part) => part.type === 'chunk');
  const imported = chunks.flatMap(({ imports, dynamicImports }) => [...imports, ...dynamicImports]);
  const names = new Set(chunks.map(({ fileName }) => fileName));
  t.same(
    imported.filter((name) => !names.has(name)),
    [],
    'no import is left',
  );
  const text = chunks.map(({ code }) => code).join('\n');
  t.match(text, /ZodObject/, 'zod is in it');
  t.notMatch(text, /["'`]node:/);
  const modules = chunks.flatMap(({ moduleIds }) => moduleIds);
  t.same(
    modules.filter((id) => !/\/(schemas|node_modules\/zod)\/|^\0/.test(id)),
    [],
  );
  t.same(warnings, []);
});
