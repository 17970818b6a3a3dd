import fc, { type Arbitrary } from 'fast-check';
import type { JsonSchema } from '../../../src/http/json-schema.ts';
import type { Judge, Route } from '../../support/judge.ts';

/** A placeholder for a handle's id, which is chosen when the request is sent. */
export interface IdChoice {
  id: 'mine' | 'ended' | 'closed' | 'odd' | 'watch';
  index: number;
}

export interface FuzzRequest {
  /** `null` if no route is intended. */
  route: Route | null;
  method: string;
  /** The path, with `{id}` in the place of an id. */
  path: string;
  /** Texts in which `ID0`, `ID1` … stand for ids. */
  ids: IdChoice[];
  headers: Record<string, string>;
  body: string | undefined;
  /** Milliseconds until the caller disconnects. */
  abortAfterMs: number | null;
}

/** What requests may use, so that they do no harm to this machine. */
export interface Surroundings {
  /** A directory of the test. */
  directory: string;
  /** Pids of processes that the test started. */
  pids: number[];
  /** Their arguments, which no other process has. */
  argv: string;
}

const programs = [
  ['true'],
  ['false'],
  ['echo', 'some', 'words'],
  ['cat'],
  ['sh', '-c', 'echo out; echo err >&2; exit 3'],
  ['sh', '-c', 'kill -STOP $$; exit 4'],
  ['sleep', '1000'],
  ['/no/such/program'],
  ['seq', '1000'],
];

const oddTexts = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '../../..',
  '%00',
  '__proto__',
  'constructor',
  'x'.repeat(5000),
  '💥'.repeat(100),
  '-1',
  '0x10',
  'null',
  "' OR 1=1 --",
  '\r\nX-Injected: 1',
];
const oddValues: unknown[] = [
  ...oddTexts,
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  -(2 ** 63),
  1e308,
  [],
  [[]],
  {},
  { toString: 1 },
  { length: 1e9 },
  Array.from({ length: 1100 }, (_, n) => n),
];

/** Generates requests that follow the document, and others that nearly do. */
export class Generator {
  readonly #api: Judge;
  readonly #surroundings: Surroundings;

  constructor(api: Judge, surroundings: Surroundings) {
    this.#api = api;
    this.#surroundings = surroundings;
  }

  requests(): Arbitrary<FuzzRequest> {
    return fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(...this.#api.routes).chain((route) => this.#valid(route)) },
      { weight: 8, arbitrary: fc.constantFrom(...this.#api.routes).chain((route) => this.#broken(route)) },
      { weight: 1, arbitrary: this.#astray() },
    );
  }

  readonly #ids = fc.array(
    fc.record({
      id: fc.constantFrom<IdChoice['id']>('mine', 'mine', 'mine', 'ended', 'ended', 'closed', 'odd'),
      index: fc.nat(1000),
    }),
    { minLength: 4, maxLength: 4 },
  );

  readonly #headers = fc.record(
    {
      prefer: fc.constantFrom('wait=0', 'respond-async', 'respond-async, wait=0', 'wait=x', 'return=minimal'),
      'idempotency-key': fc.constantFrom('a', 'b', 'c', 'key with spaces', 'x'.repeat(255)),
      'x-request-id': fc.constantFrom('mine-1', 'odd id', 'x'.repeat(500)),
    },
    { requiredKeys: [] },
  ) as Arbitrary<Record<string, string>>;

  #valid(route: Route): Arbitrary<FuzzRequest> {
    const query = this.#api.parametersOf(route).filter((parameter) => parameter.in === 'query');
    const schema = this.#api.bodyOf(route);
    const body = schema === undefined ? fc.constant(undefined) : this.#value(schema, '');
    return fc
      .record({
        ids: this.#ids,
        errno: fc.constantFrom('EAGAIN', 'ECHILD', 'EXXX'),
        headers: this.#headers,
        more: this.#moreHeaders(route),
        query: fc.record(Object.fromEntries(query.map(({ name, schema }) => [name, this.#value(schema, name)])), {
          requiredKeys: [],
        }),
        body,
        abortAfterMs: fc.oneof({ weight: 30, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: fc.nat(3) }),
      })
      .map(({ query, errno, headers, more, body, ...rest }) => ({
        route,
        method: route.method,
        path: route.path.replace('{errno}', errno) + queryOf(query as Record<string, unknown>),
        headers: { ...headers, ...more, ...(body !== undefined && { 'content-type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        ...rest,
      }));
  }

  #moreHeaders(route: Route): Arbitrary<Record<string, string>> {
    const headers: Record<string, Arbitrary<string>> = {};
    if (route.path === '/v1/events') {
      headers.accept = fc.constantFrom('application/json', '*/*', 'text/html', 'application/json;q=0');
      headers['last-event-id'] = fc.constantFrom('0', '5', 'x', '-1');
    }
    if (/std(out|err)$/.test(route.path))
      headers.range = fc.constantFrom(
        'bytes=0-3',
        'bytes=-2',
        'bytes=5-',
        'bytes=9-1',
        'lines=1-2',
        'bytes=0-1,3-4',
        'bytes=99999999-',
      );
    return fc.record(headers, { requiredKeys: [] }) as Arbitrary<Record<string, string>>;
  }

  /** A valid request with an error added. */
  #broken(route: Route): Arbitrary<FuzzRequest> {
    return fc
      .record({
        request: this.#valid(route),
        how: fc.nat(11),
        where: fc.nat(),
        odd: fc.constantFrom(...oddValues),
        text: fc.constantFrom(...oddTexts),
      })
      .map(({ request, how, where, odd, text }): FuzzRequest => {
        const { body, headers, path } = request;
        const json = { 'content-type': 'application/json' };
        if (how <= 4 && body !== undefined)
          return { ...request, body: JSON.stringify(mutated(JSON.parse(body), where, odd)) };
        if (how === 5) return { ...request, headers: { ...headers, ...json }, body: `${body ?? '{}'}`.slice(0, -1) };
        if (how === 6) return { ...request, headers: { ...headers, 'content-type': 'text/plain' }, body: body ?? 'x' };
        if (how === 7)
          return {
            ...request,
            path: `${path}${path.includes('?') ? '&' : '?'}${encodeURIComponent(wellFormed(text))}=1`,
          };
        if (how === 8)
          return {
            ...request,
            path: `${path}${path.includes('?') ? '&' : '?'}limit=${encodeURIComponent(wellFormed(text))}&limit=2`,
          };
        if (how === 9) return { ...request, headers: { ...headers, ...json }, body: JSON.stringify(odd) };
        if (how === 10) return { ...request, headers: { ...headers, 'idempotency-key': 'x'.repeat(300) } };
        return { ...request, headers: { ...headers, 'content-encoding': 'gzip', ...json }, body: body ?? '{}' };
      });
  }

  /** An unknown route, or another method. */
  #astray(): Arbitrary<FuzzRequest> {
    return fc
      .record({
        method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'),
        path: fc.constantFrom(
          '/',
          '/v1',
          '/v1/',
          '/v1/handles/',
          '/v1//handles',
          '/V1/handles',
          '/v1/handles/%',
          '/v1/handles/%ff',
          '/v1/handles/%2e%2e',
          '//',
          '/docs/../livez',
          `/${'x'.repeat(9000)}`,
          '/v1/poll/',
          '/livez?x=1',
          '/v1/handles/{id}/',
          '/v1/handles/{id}/nothing',
        ),
        ids: this.#ids,
      })
      .map((request) => ({ ...request, route: null, headers: {}, body: undefined, abortAfterMs: null }));
  }

  /** A value that matches a schema, and is harmless if its name suggests an effect. */
  #value(given: JsonSchema, name: string): Arbitrary<unknown> {
    const harmless = this.#harmless(name);
    if (harmless !== null) return harmless;
    const schema = this.#api.resolve<JsonSchema>(given);
    const either = schema.anyOf ?? schema.oneOf;
    if (either !== undefined) return fc.oneof(...either.map((one) => this.#value(one, name)));
    if ('const' in schema) return fc.constant(schema.const);
    if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
    switch (schema.type) {
      case 'boolean':
        return fc.boolean();
      case 'integer':
        return fc.integer({ min: schema.minimum ?? -1000, max: Math.min(schema.maximum ?? 1000, 2 ** 31 - 1) });
      case 'number':
        return fc.double({ min: schema.minimum ?? -1000, max: schema.maximum ?? 1000, noNaN: true });
      case 'array':
        return this.#array(schema, name);
      case 'object':
        return this.#object(schema);
      default:
        return schema.pattern === undefined
          ? fc.string({ maxLength: Math.min(schema.maxLength ?? 20, 20) })
          : fc.stringMatching(new RegExp(schema.pattern, 'u'), { maxLength: Math.min(schema.maxLength ?? 30, 30) });
    }
  }

  #array(schema: JsonSchema, name: string): Arbitrary<unknown[]> {
    const item = schema.items === undefined ? fc.constant(0) : this.#value(schema.items, `${name} item`);
    return fc.array(item, { minLength: schema.minItems ?? 0, maxLength: 5 });
  }

  #object(schema: JsonSchema): Arbitrary<unknown> {
    const { properties, additionalProperties, propertyNames, required = [] } = schema;
    if (properties !== undefined)
      return fc.record(
        Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, this.#value(value, key)])),
        {
          requiredKeys: required,
        },
      );
    const keys = this.#value(propertyNames ?? { type: 'string' }, 'key') as Arbitrary<string>;
    const values = this.#value(typeof additionalProperties === 'object' ? additionalProperties : {}, 'value');
    return fc.dictionary(keys, values, { maxKeys: 4 });
  }

  #harmless(name: string): Arbitrary<unknown> | null {
    const { directory, pids, argv } = this.#surroundings;
    const choices: Record<string, Arbitrary<unknown>> = {
      argv: fc.constantFrom(...programs),
      cwd: seldom('/', '/tmp', directory, '/no/such/directory', '/dev/null'),
      file: fc.constantFrom(`${directory}/file`, `${directory}/no/such/file`, directory, '/dev/full', '/no/such'),
      user: seldom(undefined, 'nobody', 65534, 0, 'no-such-user', 4242),
      group: seldom(undefined, 'nogroup', 65534, 'no-such-group'),
      limits: seldom(undefined, { nofile: 64 }, { core: 0, cpu: 'unlimited' }, { nofile: { soft: 2, hard: 1 } }, {}),
      stdin: seldom('null', { text: 'some text' }, { base64: 'AAEC' }, { text: '\ud800' }),
      pid: fc.oneof(fc.constantFrom(...pids), fc.constantFrom(2 ** 22 + 1, 2 ** 31 - 1)),
      // Never a single *, here and among the odd texts: opened processes may be killed.
      match: fc.constantFrom(
        { argv },
        { argv: `${argv}*` },
        { argv, exe: '/no/such/*' },
        { argv: `${argv}0` },
        { cgroup: '' },
        {},
      ),
      inode: fc.constantFrom('1', '18446744073709551615'),
      dup: fc.constant('ID1'),
      handles: fc.subarray(['ID0', 'ID1', 'ID2', 'ID3'], { minLength: 1 }),
      handle: fc.constantFrom('ID0', 'ID1'),
      follow: fc.constantFrom(0, 1),
      since: fc.constantFrom(0, 1, 10, 2 ** 53 - 1),
      cursor: fc.constantFrom('c1', 'c100', 'c999999999'),
      label: fc.constantFrom('a=b', 'job=42', 'x=', '=', 'none'),
      exe: fc.constantFrom('/no/such/program'),
      cgroup: seldom(undefined, {}, { memoryMax: 4096 }),
      nice: seldom(undefined, 0, 5, 19),
      umask: seldom(undefined, '022', '0777'),
      env: seldom({}, { A: 'b' }, { 'odd name': 'x' }, { PATH: '/nowhere' }),
      signal: fc.constantFrom('SIGTERM', 'SIGKILL', 'SIGSTOP', 'SIGCONT', 'SIGUSR1', 'SIGRTMIN+3', 0, 15, 64),
      options: fc.oneof(
        fc.subarray(['WEXITED', 'WNOHANG', 'WNOWAIT', 'WSTOPPED', 'WCONTINUED']),
        fc.constantFrom(['WEXITED', 'WNOHANG']),
      ),
      until: fc.constantFrom('any', 'all', 1, 2),
    };
    if (name.endsWith('Ms')) return fc.integer({ min: 0, max: 3 });
    return choices[name] ?? null;
  }
}

/** Picks an element, mostly the first. */
function seldom(usual: unknown, ...others: unknown[]): Arbitrary<unknown> {
  return fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
}

function wellFormed(text: string): string {
  return text.isWellFormed() ? text : '%ED%A0%80';
}

function queryOf(query: Record<string, unknown>): string {
  const parts = Object.entries(query).flatMap(([name, value]) =>
    [value].flat().map((one) => `${name}=${encodeURIComponent(wellFormed(String(one)))}`),
  );
  return parts.length === 0 ? '' : `?${parts.join('&')}`;
}

/** Replaces, removes or adds a value at a place selected by a number. */
function mutated(value: unknown, where: number, odd: unknown): unknown {
  if (typeof value !== 'object' || value === null) return odd;
  const keys = Object.keys(value);
  const choice = where % (keys.length + 2);
  const rest = Math.floor(where / (keys.length + 2));
  if (Array.isArray(value)) {
    if (choice >= keys.length) return [...value, odd];
    return rest % 2 === 0 ? value.toSpliced(choice, 1) : value.with(choice, mutated(value[choice], rest, odd));
  }
  const object = value as Record<string, unknown>;
  if (choice === keys.length) return { ...object, nonsense: odd };
  if (choice > keys.length) return { ...object, constructor: odd, '': odd };
  const key = keys[choice]!;
  if (rest % 3 === 0) return Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));
  return { ...object, [key]: mutated(object[key], rest, odd) };
}
