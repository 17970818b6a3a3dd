import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import t from 'tap';
import type { JsonSchema } from '../src/http/json-schema.ts';
import type { OpenApiDocument, Parameter, ResponseObject } from '../src/http/openapi.ts';
import { Daemon } from './support/harness.ts';
import { Judge } from './support/judge.ts';

const daemon = await Daemon.start(t);
const document: OpenApiDocument = (await daemon.get('/openapi.json')).body;
const api = new Judge(document);

/** A place in the document that contains a schema. */
interface Place {
  at: string;
  schema: JsonSchema;
}

/** Calls a function for a schema and its parts; with `follow`, also for the schemas that it refers to. */
function visit(at: string, schema: JsonSchema, see: (place: Place) => void, follow = new Set<string>()): void {
  see({ at, schema });
  const { $ref, properties = {}, items, additionalProperties, propertyNames, anyOf = [], oneOf = [] } = schema;
  if ($ref !== undefined && !follow.has($ref)) {
    follow.add($ref);
    visit($ref, api.resolve<JsonSchema>({ $ref }), see, follow);
  }
  const below = [
    ...Object.entries(properties),
    ...[...anyOf, ...oneOf].map((one, index): [string, JsonSchema] => [one.title ?? String(index), one]),
    ...Object.entries({ items, propertyNames }).filter(
      (entry): entry is [string, JsonSchema] => entry[1] !== undefined,
    ),
  ];
  if (typeof additionalProperties === 'object') below.push(['*', additionalProperties]);
  for (const [name, each] of below) visit(`${at}/${name}`, each, see, follow);
}

const responsesOf = ({ operation }: (typeof api.routes)[number]): [string, ResponseObject][] =>
  Object.entries(operation.responses).map(([status, response]) => [status, api.resolve<ResponseObject>(response)]);

const isProblem = ({ content = {} }: ResponseObject): boolean => 'application/problem+json' in content;

/** The request schemas and the response schemas, each with all schemas that they refer to. */
const requests: Place[] = [];
const answers: Place[] = [];
for (const route of api.routes) {
  const { operationId } = route.operation;
  const body = api.bodyOf(route);
  if (body !== undefined) visit(`${operationId} body`, body, (place) => requests.push(place));
  for (const { name, schema } of api.parametersOf(route))
    visit(`${operationId} ${name}`, schema, (place) => requests.push(place));
  for (const [status, { content = {} }] of responsesOf(route))
    for (const { schema } of Object.values(content)) {
      // The first frames of a WebSocket are those that the client sends.
      const [sent, received] = status === '101' ? schema.oneOf! : [];
      if (sent !== undefined) visit(`${operationId} sent`, sent, (place) => requests.push(place));
      visit(`${operationId} ${status}`, received ?? schema, (place) => answers.push(place));
    }
}
const everything = [...requests, ...answers];

/** Lists the places that violate a rule, each once. */
const broken = (places: readonly Place[], rule: (schema: JsonSchema, at: string) => boolean): string[] => [
  ...new Set(places.filter(({ schema, at }) => !rule(schema, at)).map(({ at }) => at)),
];

t.test('each operation has a name that says what it does, tags, and a route', async (t) => {
  t.equal(document.openapi, '3.1.0');
  t.same(
    api.routes.map(({ method, path, operation }) => `${operation.operationId}: ${method} ${path}`),
    [
      'listHandles: GET /v1/handles',
      'createHandle: POST /v1/handles',
      'getHandle: GET /v1/handles/{id}',
      'updateHandle: PATCH /v1/handles/{id}',
      'closeHandle: DELETE /v1/handles/{id}',
      'renewLease: POST /v1/handles/{id}/lease',
      'getUsage: GET /v1/handles/{id}/usage',
      'waitid: POST /v1/handles/{id}/waitid',
      'poll: POST /v1/poll',
      'sendSignal: POST /v1/handles/{id}/signal',
      'terminate: POST /v1/handles/{id}/terminate',
      'readStdout: GET /v1/handles/{id}/stdout',
      'readStderr: GET /v1/handles/{id}/stderr',
      'writeStdin: POST /v1/handles/{id}/stdin',
      'resizeTerminal: PUT /v1/handles/{id}/tty',
      'attach: GET /v1/handles/{id}/attach',
      'listEvents: GET /v1/events',
      'listWatches: GET /v1/watches',
      'createWatch: POST /v1/watches',
      'getWatch: GET /v1/watches/{id}',
      'deleteWatch: DELETE /v1/watches/{id}',
      'getNode: GET /v1/node',
      'getMetrics: GET /metrics',
      'getLiveness: GET /livez',
      'getReadiness: GET /readyz',
      'getProblem: GET /problems/{errno}',
    ],
  );
  const declared = document.tags as { name: string; description: string }[];
  t.ok(declared.every(({ description }) => description.length > 10));
  const used = new Set(api.routes.flatMap(({ operation }) => operation.tags));
  t.same(new Set(declared.map(({ name }) => name)), used);
  for (const { operation } of api.routes) {
    t.equal(operation.tags.length, 1);
    t.ok(operation.summary && operation.description, operation.operationId);
  }
  for (const [path, methods] of Object.entries(document.paths)) {
    const allowed = (await daemon.request('TRACE', path.replace(/\{\w+\}/, 'h_1'))).headers.allow!.split(', ');
    const described = Object.keys(methods).map((method) => method.toUpperCase());
    t.same(new Set(allowed), new Set([...described, ...(described.includes('GET') ? ['HEAD'] : [])]), path);
  }
});

t.test('each parameter, property and component has a description', (t) => {
  for (const route of api.routes)
    for (const { name, description } of api.parametersOf(route))
      t.ok(description.length > 10, `${route.operation.operationId} ${name}`);
  const properties = everything.flatMap(({ at, schema }) =>
    Object.entries(schema.properties ?? {}).map(([name, property]) => ({ at: `${at}/${name}`, schema: property })),
  );
  t.ok(properties.length > 100);
  t.same(
    broken(properties, (schema) => api.resolve<JsonSchema>(schema).description !== undefined),
    [],
  );
  t.same(
    broken(
      Object.entries(document.components.schemas).map(([at, schema]) => ({ at, schema })),
      ({ description }) => description !== undefined,
    ),
    [],
  );
  t.end();
});

t.test('no component is unused, and no object is described twice', (t) => {
  const references = new Set(
    [...JSON.stringify(document).matchAll(/"#\/components\/([^"]+)"/g)].map(([, name]) => name),
  );
  const components = Object.entries(document.components)
    .filter(([kind]) => kind !== 'securitySchemes')
    .flatMap(([kind, each]) => Object.keys(each).map((name) => `${kind}/${name}`));
  t.same(
    components.filter((name) => !references.has(name)),
    [],
  );
  t.same(
    [...references].filter((name) => !components.includes(name!)),
    [],
  );
  const objects = new Map<string, string>();
  const twice = everything.filter(({ at, schema }) => {
    if (schema.properties === undefined) return false;
    const text = JSON.stringify(schema.properties);
    const first = objects.get(text) ?? at;
    objects.set(text, first);
    return first !== at;
  });
  t.same(
    [...new Set(twice.map(({ at, schema }) => `${at} is ${objects.get(JSON.stringify(schema.properties))}`))],
    ['#/components/schemas/MatchView is #/components/schemas/Match'],
    'except the schema that is strict in requests and open in responses',
  );
  t.notOk(Object.keys(document.components.schemas).some((name) => /Input$|Output$/.test(name)));
  t.end();
});

t.test('request schemas are strict, and response schemas are open for new fields', (t) => {
  t.same(
    broken(requests, ({ properties, additionalProperties }) => !properties || additionalProperties === false),
    [],
  );
  t.same(
    broken(answers, ({ additionalProperties }) => additionalProperties !== false),
    [],
  );
  t.end();
});

t.test('generators can type every schema', (t) => {
  t.same(
    broken(everything, (schema) => !('prefixItems' in schema) && !('allOf' in schema)),
    [],
  );
  const isObject = (schema: JsonSchema): boolean => api.resolve<JsonSchema>(schema).type === 'object';
  t.same(
    broken(everything, ({ anyOf = [] }) => anyOf.filter(isObject).length < 2),
    [],
    'alternatives of which exactly one fits are oneOf',
  );
  t.same(
    broken(everything, ({ oneOf = [], anyOf = [] }) =>
      [...oneOf, ...anyOf].every((one) => !one.properties || one.title !== undefined),
    ),
    [],
    'each variant has a title',
  );
  for (const [name, titles] of Object.entries({
    CreateHandle: ['SpawnHandle', 'OpenHandle', 'DupHandle'],
    Open: ['OpenByPid', 'OpenByMatch'],
    Outcome: ['Exited', 'Killed', 'Dumped', 'Unknown'],
  }))
    t.same(
      document.components.schemas[name]!.oneOf!.map(({ title }) => title),
      titles,
      name,
    );
  const isTime = (at: string): boolean => /\/(at|\w+At)$/.test(at);
  t.ok(everything.filter(({ at }) => isTime(at)).length >= 4);
  t.same(
    broken(everything, ({ format }, at) => isTime(at) === (format === 'date-time')),
    [],
  );
  for (const id of ['readStdout', 'readStderr']) {
    const route = api.routes.find(({ operation }) => operation.operationId === id)!;
    for (const [status, { content = {} }] of responsesOf(route))
      if (Number(status) < 300) t.match(content['application/octet-stream'], { schema: { format: 'binary' } });
  }
  const optional = api.routes.filter(({ operation }) => operation.requestBody?.required === false);
  t.same(
    optional.map(({ operation }) => operation.operationId),
    ['waitid', 'terminate', 'writeStdin'],
  );
  t.equal(api.routes.filter(({ operation }) => operation.requestBody?.required === true).length, 6);
  t.end();
});

t.test('a strict parser accepts the document', async (t) => {
  t.match(await new Validator().validate(document), { valid: true });
});

t.test('each example matches its schema, which a strict parser accepts', (t) => {
  const ajv = new Ajv2020({
    strict: true,
    strictRequired: false,
    allowUnionTypes: true,
    formats: { 'date-time': true, 'uri-reference': true, binary: true },
  });
  ajv.addKeyword('components');
  ajv.addSchema({ $id: 'api', components: document.components } as object, 'api', false, false);
  const fits = (schema: JsonSchema, value: unknown): boolean => {
    const text = JSON.stringify(schema).replaceAll('"$ref":"#/', '"$ref":"api#/');
    return ajv.validate(JSON.parse(text), value) as boolean;
  };
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    for (const example of schema.examples ?? []) t.ok(fits(schema, example), `${name}: ${ajv.errorsText()}`);
    const isPart = /^(Labels|LabelChanges|\w+Frame)$/.test(name);
    t.ok(isPart || schema.examples !== undefined, `${name} has an example`);
  }
  for (const { at, schema } of everything)
    for (const example of schema.examples ?? []) t.ok(fits(schema, example), `${at}: ${ajv.errorsText()}`);
  for (const [name, { content = {} }] of Object.entries(document.components.responses)) {
    const { schema, examples = {} } = content['application/problem+json']!;
    const values = Object.entries(examples) as [string, { value: { errno: string; status: number; type: string } }][];
    t.same(
      values.map(([errno]) => errno),
      name.split('_').slice(1),
      name,
    );
    for (const [errno, { value }] of values) {
      t.ok(fits(schema, value), `${name}: ${ajv.errorsText()}`);
      t.match(value, { errno, type: `/problems/${errno}` });
    }
  }
  t.end();
});

/** The statuses that any operation may have, and those that need an identified client. */
const ANYWHERE = [400, 403, 408, 412, 413, 414, 415, 417, 421, 431, 500];
const OF_CLIENTS = [401, 429];

/** The further statuses of each operation. */
const statuses: Record<string, number[]> = {
  listHandles: [200, 503],
  createHandle: [201, 404, 409, 410, 422, 501, 503],
  getHandle: [200, 404, 410, 503],
  updateHandle: [200, 404, 409, 410, 503],
  closeHandle: [204, 404, 410, 503],
  renewLease: [200, 404, 410, 422, 503],
  getUsage: [200, 404, 410, 503],
  waitid: [200, 202, 404, 409, 410, 422, 503],
  poll: [200, 404, 410, 422, 503],
  sendSignal: [204, 404, 410, 422, 501, 503, 504],
  terminate: [200, 404, 410, 422, 503, 504],
  readStdout: [200, 206, 404, 410, 416, 503],
  readStderr: [200, 206, 404, 410, 416, 503],
  writeStdin: [200, 404, 409, 410, 422, 503],
  resizeTerminal: [204, 404, 410, 422, 503],
  attach: [101, 404, 410, 426, 503],
  listEvents: [101, 200, 404, 406, 426, 503],
  listWatches: [200, 503],
  createWatch: [201, 404, 422, 503],
  getWatch: [200, 404, 503],
  deleteWatch: [204, 404, 503],
  getNode: [200, 503],
  getMetrics: [200],
  getLiveness: [200],
  getReadiness: [200, 503],
  getProblem: [200, 404, 503],
};

t.test('each operation has the statuses that can occur, and a problem for each', (t) => {
  for (const route of api.routes) {
    const { operationId, security } = route.operation;
    const isOpen = security !== undefined;
    const expected = [...ANYWHERE, ...(isOpen ? [] : OF_CLIENTS), ...statuses[operationId]!];
    t.same(
      responsesOf(route).map(([status]) => Number(status)),
      expected.sort((a, b) => a - b),
      operationId,
    );
    for (const [status, response] of responsesOf(route)) {
      const isHealth = operationId === 'getReadiness' && status === '503';
      t.equal(isProblem(response), Number(status) >= 400 && !isHealth, `${operationId} ${status}`);
      const { content = {}, headers = {} } = response;
      t.ok('X-Request-Id' in headers);
      for (const { value } of Object.values(content['application/problem+json']?.examples ?? {}) as {
        value: { status: number; retry?: { events?: string } };
      }[]) {
        t.equal(value.status, Number(status));
        t.ok(value.retry === undefined || 'Retry-After' in headers, `${operationId} ${status}`);
        t.ok(value.retry?.events === undefined || 'Link' in headers, `${operationId} ${status}`);
      }
    }
  }
  t.end();
});

t.test('request and response headers are described', (t) => {
  const headersOf = (id: string, status: number): string[] => {
    const route = api.routes.find(({ operation }) => operation.operationId === id)!;
    const [, { headers = {} }] = responsesOf(route).find(([each]) => Number(each) === status)!;
    return Object.keys(headers).filter((name) => name !== 'X-Request-Id');
  };
  const sent = Object.fromEntries(
    api.routes.map((route) => [
      route.operation.operationId,
      api.parametersOf(route).flatMap((parameter: Parameter) => (parameter.in === 'header' ? [parameter.name] : [])),
    ]),
  );
  t.match(sent, {
    createHandle: ['Prefer', 'Idempotency-Key'],
    waitid: ['Prefer', 'Idempotency-Key'],
    poll: ['Prefer', 'Idempotency-Key'],
    sendSignal: ['Idempotency-Key'],
    terminate: ['Idempotency-Key'],
    createWatch: ['Idempotency-Key'],
    readStdout: ['Range', 'If-Range'],
    readStderr: ['Range', 'If-Range'],
    listEvents: ['Last-Event-ID'],
    getHandle: [],
  });
  t.same(headersOf('createHandle', 201), ['Location', 'Preference-Applied', 'Idempotent-Replayed']);
  t.same(headersOf('createWatch', 201), ['Location', 'Idempotent-Replayed']);
  t.same(headersOf('waitid', 200), ['Preference-Applied', 'Idempotent-Replayed']);
  t.same(headersOf('waitid', 202), ['Preference-Applied', 'Retry-After', 'Link']);
  t.same(headersOf('waitid', 409), ['Retry-After', 'Link']);
  t.same(headersOf('waitid', 401), ['WWW-Authenticate']);
  t.same(headersOf('waitid', 429), ['Retry-After']);
  t.same(headersOf('readStdout', 206), ['Waitd-Offset', 'Accept-Ranges', 'Content-Range']);
  t.same(headersOf('readStdout', 416), ['Content-Range']);
  t.same(headersOf('listEvents', 426), ['Upgrade']);
  t.end();
});

t.test('servers and security match the implementation', (t) => {
  t.match(document.servers, [{ url: '/' }, { url: 'http://127.0.0.1:7411' }]);
  t.match(document.components.securitySchemes, {
    bearer: { type: 'http', scheme: 'bearer' },
    clientCertificate: { type: 'mutualTLS' },
  });
  t.same(
    document.security,
    [{}, { bearer: [] }, { clientCertificate: [] }],
    'on a Unix socket the client sends nothing',
  );
  const open = api.routes.filter(({ operation }) => operation.security !== undefined);
  t.same(
    open.map(({ path, operation }) => [path, operation.security]),
    [
      ['/livez', []],
      ['/readyz', []],
      ['/problems/{errno}', []],
    ],
  );
  t.end();
});

t.test('the served document equals the one built from the sources', async (t) => {
  for (const path of ['/docs/json', '/openapi.json']) t.same((await daemon.get(path)).body, document, path);
  t.match((await daemon.get('/docs/yaml')).text, /^openapi: "?3\.1\.0"?\n/);
  t.match((await daemon.get('/docs/')).text, /<title>waitd<\/title>/);
  t.equal(await daemon.stop(), 0);
});
