/** Each program uses its client to spawn, wait, and read the events and the output; it prints its findings. */
export interface Found {
  relation: string;
  exitCode: number;
  events: string[];
  output: string;
}

/** A client generator, with a program that uses the generated client. */
export interface Generator {
  /** Required packages, with exact versions. */
  packages: Readonly<Record<string, string>>;
  /** Its command, which reads `openapi.json` and writes below `src`. */
  command: readonly string[];
  /** Files that it reads. */
  files?: Readonly<Record<string, string>>;
  program: string;
}

/** The common part of all programs. */
const BEGIN = `
const { BASE = '', TOKEN = '' } = process.env;
const headers = { authorization: \`Bearer \${TOKEN}\` };
const argv = ['sh', '-c', 'echo hello; exit 3'];
const found = { relation: '', exitCode: -1, events: [] as string[], output: '' };
`;
const END = `
console.log(JSON.stringify(found));
`;

export const generators: Readonly<Record<string, Generator>> = {
  'openapi-typescript': {
    packages: { 'openapi-typescript': '7.13.0', 'openapi-fetch': '0.17.0' },
    command: ['openapi-typescript', 'openapi.json', '--default-non-nullable', 'false', '--output', 'src/schema.ts'],
    program: `
import createClient from 'openapi-fetch';
import type { paths } from './schema';
${BEGIN}
const client = createClient<paths>({ baseUrl: BASE, headers });
const created = await client.POST('/v1/handles', { body: { spawn: { argv, stdout: 'capture' } } });
if (created.error) throw new Error(created.error.errno);
const { id, seq, relation } = created.data;
found.relation = relation;
const waited = await client.POST('/v1/handles/{id}/waitid', { params: { path: { id } }, body: { options: ['WEXITED'] } });
if (waited.error) throw new Error(waited.error.errno);
if (waited.data.outcome?.reason === 'exited') found.exitCode = waited.data.outcome.exitCode;
const page = await client.GET('/v1/events', { params: { query: { handle: [id], type: ['exited', 'opened'], since: seq } } });
if (page.error) throw new Error(page.error.errno);
if (typeof page.data === 'string') throw new Error(page.data);
found.events = page.data.events.map(({ event }) => event);
const output = await client.GET('/v1/handles/{id}/stdout', { params: { path: { id } }, parseAs: 'text' });
if (output.error) throw new Error(output.error.errno);
found.output = output.data;
${END}`,
  },
  'hey-api': {
    packages: { '@hey-api/openapi-ts': '0.99.0' },
    command: ['openapi-ts', '--input', 'openapi.json', '--output', 'src/client', '--client', '@hey-api/client-fetch'],
    program: `
import { createHandle, listEvents, readStdout, waitid } from './client';
import { client } from './client/client.gen';
${BEGIN}
client.setConfig({ baseUrl: BASE, auth: TOKEN, throwOnError: true });
const { data: created } = await createHandle({ body: { spawn: { argv, stdout: 'capture' } }, throwOnError: true });
const { id, seq, relation } = created;
found.relation = relation;
const { data: waited } = await waitid({ path: { id }, body: { options: ['WEXITED'] }, throwOnError: true });
if (waited.outcome?.reason === 'exited') found.exitCode = waited.outcome.exitCode;
const { data: page } = await listEvents({ query: { handle: [id], type: ['exited', 'opened'], since: seq }, throwOnError: true });
if (typeof page !== 'string') found.events = page.events.map(({ event }) => event);
const { data: output } = await readStdout({ path: { id }, throwOnError: true });
found.output = await output.text();
${END}`,
  },
  orval: {
    packages: { orval: '8.38.0' },
    command: ['orval', '--config', 'orval.config.mjs'],
    files: {
      'orval.config.mjs': `export default {
  waitd: {
    input: './openapi.json',
    output: { target: './src/client.ts', client: 'fetch', baseUrl: { runtime: 'process.env.BASE' } },
  },
};
`,
    },
    program: `
import { createHandle, listEvents, readStdout, waitid } from './client';
${BEGIN}
const created = await createHandle({ spawn: { argv, stdout: 'capture' } }, {}, { headers });
if (created.status !== 201) throw new Error(created.data.errno);
const { id, seq, relation } = created.data;
found.relation = relation;
const waited = await waitid(id, { options: ['WEXITED'] }, {}, { headers });
if (waited.status !== 200) throw new Error(String(waited.status));
if (waited.data.outcome?.reason === 'exited') found.exitCode = waited.data.outcome.exitCode;
const page = await listEvents({ handle: [id], type: ['exited', 'opened'], since: seq }, { headers });
if (page.status !== 200 || typeof page.data === 'string') throw new Error(String(page.status));
found.events = page.data.events.map(({ event }) => event);
const output = await readStdout(id, {}, { headers });
if (output.status !== 200) throw new Error(output.headers.get('content-type') ?? '');
found.output = await output.data.text();
${END}`,
  },
  oazapfts: {
    packages: { oazapfts: '7.5.0', '@oazapfts/runtime': '1.2.0' },
    command: ['oazapfts', 'openapi.json', 'src/client.ts'],
    program: `
import { createHandle, defaults, listEvents, readStdout, waitid } from './client';
${BEGIN}
defaults.baseUrl = BASE;
defaults.headers = headers;
const created = await createHandle({ spawn: { argv, stdout: 'capture' } });
if (created.status !== 201) throw new Error(String(created.status));
const { id, seq, relation } = created.data;
found.relation = relation;
const waited = await waitid(id, { options: ['WEXITED'] });
if (waited.status !== 200) throw new Error(String(waited.status));
if (waited.data.outcome?.reason === 'exited') found.exitCode = waited.data.outcome.exitCode;
const page = await listEvents({ handle: [id], $type: ['exited', 'opened'], since: seq });
if (page.status !== 200) throw new Error(String(page.status));
found.events = page.data.events.map(({ event }) => event);
const output = await readStdout(id);
if (output.status !== 200) throw new Error(String(output.status));
// The runtime returns text although the type is Blob, because the problems of the operation are JSON.
found.output = await new Response(output.data).text();
${END}`,
  },
};
