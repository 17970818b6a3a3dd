import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { hashOf } from '../src/clients/tokens.ts';
import { Daemon, type RequestOptions, type Response, type Socket, temporaryDirectory } from './support/harness.ts';

const full = { open: 'any', spawn: true, signal: true };
const clients = {
  owner: full,
  other: full,
  observer: { observe: true },
  admin: { admin: true },
};
type Name = keyof typeof clients;

const tokenOf = (name: string): string => `${name}-0123456789abcdef`;
const as = (name: string): RequestOptions => ({ headers: { authorization: `Bearer ${tokenOf(name)}` } });

function write(policy: string, clients: Record<string, object>): void {
  const named = Object.entries(clients).map(([name, entry]) => [
    name,
    { tokens: [`sha256:${hashOf(tokenOf(name))}`], ...entry },
  ]);
  writeFileSync(policy, JSON.stringify({ clients: Object.fromEntries(named) }));
}

/** One of its clients is no longer in the policy. */
async function start(t: Test): Promise<Daemon> {
  const directory = temporaryDirectory(t);
  const policy = join(directory, 'policy.yaml');
  write(policy, { ...clients, expired: full });
  const daemon = await Daemon.start(t, { directory, args: ['--policy', policy] });
  assert.equal((await daemon.get('/v1/node', as('expired'))).status, 200);
  write(policy, clients);
  await daemon.logged('policy reloaded');
  return daemon;
}

function follow(daemon: Daemon, name: Name, query = ''): Socket {
  const token = Buffer.from(tokenOf(name)).toString('base64url');
  return daemon.ws(query, ['waitd.v1', `base64url.bearer.authorization.waitd.${token}`]);
}

const sleeping = { spawn: { argv: ['sleep', '1000'], stdout: 'capture' }, labels: { whose: 'owner' } };
const leased = { spawn: { ...sleeping.spawn, stdin: 'pipe', lease: { ttlMs: 3_600_000 } } };

async function make(t: Test, daemon: Daemon, name: Name = 'owner', body: object = sleeping): Promise<string> {
  const { id, process } = (await daemon.post('/v1/handles', body, as(name))).body;
  t.teardown(() => {
    try {
      globalThis.process.kill(process.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  });
  return id;
}

/** Returns an answer without the requested id and the request id, to compare it with another. */
function shapeOf({ status, headers, text }: Response, id: string): object {
  const { 'x-request-id': requestId, date: _, connection: __, 'keep-alive': ___, ...others } = headers;
  return { status, others, text: text.replaceAll(id, 'ID').replaceAll(String(requestId), 'REQUEST') };
}

t.test(
  'a handle of another client, live, ended or closed, is indistinguishable from one that never existed',
  async (t) => {
    const daemon = await start(t);
    const [live, ended, closed] = [await make(t, daemon), await make(t, daemon), await make(t, daemon)];
    await daemon.post(`/v1/handles/${ended}/terminate`, {}, as('owner'));
    await daemon.post('/v1/poll', { handles: [ended], for: 'settled' }, as('owner'));
    await daemon.request('DELETE', `/v1/handles/${closed}?signal=SIGKILL`, as('owner'));
    const { head } = (await daemon.get('/v1/node', as('owner'))).body;
    const never = `h_${'A'.repeat(28)}`;
    const asked = async (id: string): Promise<object[]> =>
      Promise.all(
        (
          [
            ['GET', `/v1/handles/${id}`],
            ['GET', `/v1/handles/${id}?output=100`],
            ['GET', `/v1/handles/${id}/usage`],
            ['PATCH', `/v1/handles/${id}`, { nonblocking: true }],
            ['DELETE', `/v1/handles/${id}`],
            ['DELETE', `/v1/handles/${id}?signal=SIGKILL`],
            ['POST', `/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOHANG', 'WNOWAIT'] }],
            ['POST', `/v1/handles/${id}/waitid`, {}],
            ['POST', `/v1/handles/${id}/waitid?output=100`, {}],
            ['POST', `/v1/handles/${id}/signal`, { signal: 'SIGKILL' }],
            ['POST', `/v1/handles/${id}/terminate`, {}],
            ['GET', `/v1/handles/${id}/stdout`],
            ['GET', `/v1/handles/${id}/stderr?follow=1`],
            ['POST', '/v1/poll', { handles: [id] }],
            ['POST', '/v1/handles', { dup: id }],
            ['GET', `/v1/events?handle=${id}`],
          ] as const
        ).map(async ([method, path, body]) =>
          shapeOf(await daemon.request(method, path, { ...as('other'), ...(body && { body }) }), id),
        ),
      );
    const expected = await asked(never);
    for (const id of [live, ended, closed]) t.same(await asked(id), expected);
    t.match((await daemon.get('/v1/handles', as('other'))).body, { handles: [], next: null, head: Number });
    t.same((await daemon.get('/v1/handles?label=whose=owner', as('other'))).body.handles, []);
    t.same((await daemon.get('/v1/handles?cursor=c1000000', as('other'))).body.handles, []);
    t.match((await daemon.get('/v1/events?since=0', as('other'))).body, { events: [], gap: null });

    const socket = follow(daemon, 'other', '?since=0');
    socket.send = socket.send.bind(socket);
    await socket.first(({ type }) => type === 'hello');
    socket.send({ type: 'subscribe', handles: [live, never] });
    await socket.until(() => socket.frames.filter(({ type }) => type === 'error').length === 2);
    const texts = socket.frames
      .filter(({ type }) => type === 'error')
      .map(({ detail, errno }, index) => [errno, detail.replace([live, never][index], 'ID')]);
    t.same(texts[0], texts[1]);
    t.equal(socket.events.length, 0);
    socket.close();

    t.equal((await daemon.get(`/v1/handles/${live}`, as('owner'))).body.state, 'running', 'nothing of it was changed');
    t.equal((await daemon.get('/v1/node', as('owner'))).body.head, head);
  },
);

t.test('an observer sees the handles, events and output of every client, and changes none', async (t) => {
  const daemon = await start(t);
  const watching = follow(daemon, 'observer');
  await watching.first(({ type }) => type === 'hello');
  const ids = [await make(t, daemon, 'owner'), await make(t, daemon, 'other')];
  for (const id of ids)
    t.match(await watching.first(({ handle, event }) => handle === id && event === 'opened'), { handle: id });
  const list = (await daemon.get('/v1/handles', as('observer'))).body.handles;
  t.same(
    list.map(({ client }: { client: string }) => client),
    ['other', 'owner'],
  );
  t.equal((await daemon.get('/v1/handles?label=whose=owner', as('observer'))).body.handles.length, 2);
  const [id = ''] = ids;
  for (const [method, path, body, status] of [
    ['GET', `/v1/handles/${id}`, undefined, 200],
    ['GET', `/v1/handles/${id}/stdout`, undefined, 200],
    ['GET', `/v1/events?handle=${id}`, undefined, 200],
    ['GET', '/metrics', undefined, 200],
    ['POST', '/v1/poll', { handles: ids, timeoutMs: 1 }, 200],
    ['POST', `/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOWAIT', 'WNOHANG'] }, 200],
    ['POST', `/v1/handles/${id}/waitid`, { options: ['WEXITED', 'WNOHANG'] }, 403],
    ['POST', `/v1/handles/${id}/signal`, { signal: 'SIGKILL' }, 403],
    ['POST', `/v1/handles/${id}/terminate`, {}, 403],
    ['PATCH', `/v1/handles/${id}`, { nonblocking: true }, 403],
    ['DELETE', `/v1/handles/${id}`, undefined, 403],
    ['DELETE', `/v1/handles/${id}?signal=SIGKILL`, undefined, 403],
    ['POST', '/v1/handles', { dup: id }, 403],
    ['POST', '/v1/handles', { spawn: { argv: ['true'] } }, 403],
    ['POST', '/v1/handles', { open: { pid: daemon.pid } }, 403],
  ] as const)
    t.equal(
      (await daemon.request(method, path, { ...as('observer'), ...(body && { body }) })).status,
      status,
      `${method} ${path}`,
    );
  await daemon.post(`/v1/handles/${id}/terminate`, {}, as('owner'));
  t.match(await watching.first(({ event }) => event === 'exited'), { handle: id, outcome: { signal: 'SIGTERM' } });
  const peek = { options: ['WEXITED', 'WNOWAIT'] };
  t.match((await daemon.waitid(id, peek, as('observer'))).body.outcome, { signal: 'SIGTERM' });
  t.match(
    (await daemon.waitid(id, {}, as('owner'))).body.outcome,
    { signal: 'SIGTERM' },
    'the owner can still collect it',
  );
  await daemon.request('DELETE', `/v1/handles/${id}`, as('owner'));
  t.match((await daemon.get(`/v1/handles/${id}`, as('observer'))).body, { errno: 'ESTALE' });
  watching.close();
});

t.test('an admin may change what belongs to another client, but collects nothing of it', async (t) => {
  const daemon = await start(t);
  const id = await make(t, daemon);
  t.match(
    (await daemon.request('PATCH', `/v1/handles/${id}`, { ...as('admin'), body: { labels: { seen: 'yes' } } })).body,
    {
      client: 'owner',
      labels: { seen: 'yes' },
    },
  );
  const copy = (await daemon.post('/v1/handles', { dup: id }, as('admin'))).body;
  t.equal(copy.client, 'admin');
  t.equal((await daemon.waitid(id, { options: ['WEXITED', 'WNOHANG'] }, as('admin'))).status, 403);
  t.equal((await daemon.post(`/v1/handles/${id}/signal`, { signal: 'SIGTERM' }, as('admin'))).status, 204);
  t.match((await daemon.waitid(id, {}, as('owner'))).body.outcome, { signal: 'SIGTERM' });
  t.match(
    (await daemon.waitid(copy.id, {}, as('admin'))).body.outcome,
    { signal: 'SIGTERM' },
    'it owns its own handle',
  );
  t.equal((await daemon.request('DELETE', `/v1/handles/${id}`, as('admin'))).status, 204);
  t.match((await daemon.get(`/v1/handles/${id}`, as('owner'))).body, { errno: 'ESTALE' });
});

const callers = ['anonymous', 'wrong', 'expired', 'other', 'observer', 'owner', 'admin'] as const;

/**
 * Every route with the answer for each caller: without credentials, with wrong ones, with a revoked token, another
 * client, an observer, the owner of the handle and an admin. A route that is missing here fails the test.
 */
const matrix: Record<
  string,
  { path?: string; body?: object; query?: string; expected: Record<(typeof callers)[number], number> }
> = {
  'GET /livez': {
    expected: { anonymous: 200, wrong: 200, expired: 200, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /readyz': {
    expected: { anonymous: 200, wrong: 200, expired: 200, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /metrics': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 403, observer: 200, owner: 403, admin: 200 },
  },
  'GET /v1/node': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /openapi.json': {
    expected: { anonymous: 200, wrong: 200, expired: 200, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /problems/{errno}': {
    path: '/problems/EAGAIN',
    expected: { anonymous: 200, wrong: 200, expired: 200, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /docs': {
    expected: { anonymous: 200, wrong: 200, expired: 200, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /v1/handles': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'POST /v1/handles': {
    body: { spawn: { argv: ['true'] } },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 201, observer: 403, owner: 201, admin: 201 },
  },
  'GET /v1/handles/{id}': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'PATCH /v1/handles/{id}': {
    body: { nonblocking: false },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 200, admin: 200 },
  },
  'POST /v1/handles/{id}/lease': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 200, admin: 200 },
  },
  'GET /v1/handles/{id}/usage': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'POST /v1/handles/{id}/waitid': {
    body: { options: ['WEXITED', 'WNOHANG'] },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 200, admin: 403 },
  },
  'POST /v1/handles/{id}/signal': {
    body: { signal: 'SIGCONT' },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 204, admin: 204 },
  },
  'POST /v1/handles/{id}/stdin': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 200, admin: 200 },
  },
  'PUT /v1/handles/{id}/tty': {
    body: { rows: 24, cols: 80 },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 422, admin: 422 },
  },
  'GET /v1/handles/{id}/attach': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 426, observer: 426, owner: 426, admin: 426 },
  },
  'GET /v1/handles/{id}/stdout': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'GET /v1/handles/{id}/stderr': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 404, owner: 404, admin: 404 },
  },
  'POST /v1/poll': {
    body: { handles: ['{id}'], timeoutMs: 1 },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'GET /v1/events': {
    query: '?handle={id}',
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'POST /v1/handles/{id}/terminate': {
    body: { graceMs: 1000 },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 200, admin: 200 },
  },
  'POST /v1/watches': {
    body: { match: { argv: 'of no process' } },
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 201, observer: 403, owner: 201, admin: 201 },
  },
  'GET /v1/watches': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 200, observer: 200, owner: 200, admin: 200 },
  },
  'GET /v1/watches/{id}': {
    path: '/v1/watches/{watch}',
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 200, owner: 200, admin: 200 },
  },
  'DELETE /v1/watches/{id}': {
    path: '/v1/watches/{watch}',
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 204, admin: 204 },
  },
  'DELETE /v1/handles/{id}': {
    expected: { anonymous: 401, wrong: 401, expired: 401, other: 404, observer: 403, owner: 204, admin: 204 },
  },
};

t.test('every route gives every caller the expected answer', async (t) => {
  const daemon = await start(t);
  const { paths } = (await daemon.get('/openapi.json', as('owner'))).body;
  const routes = Object.entries(paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  for (const route of routes) t.ok(route in matrix, `${route} is in the matrix`);
  for (const [route, { body, query = '', expected, ...more }] of Object.entries(matrix)) {
    const [method = ''] = route.split(' ');
    const path = more.path ?? route.slice(method.length + 1);
    for (const caller of callers) {
      const id = await make(t, daemon, 'owner', leased);
      const watch = path.includes('{watch}')
        ? (await daemon.post('/v1/watches', { match: { argv: 'of no process' } }, as('owner'))).body.id
        : '';
      const headers: Record<string, string> =
        caller === 'anonymous'
          ? {}
          : { authorization: `Bearer ${caller === 'wrong' ? 'x'.repeat(40) : tokenOf(caller)}` };
      // Over TCP, because every caller on the Unix socket has credentials.
      const answer = await daemon.request(method, (path + query).replaceAll('{id}', id).replaceAll('{watch}', watch), {
        tcp: true,
        headers: { authorization: '', ...headers },
        ...(body && { body: JSON.stringify(body).replaceAll('{id}', id) }),
      });
      t.equal(answer.status, expected[caller], `${route} of ${caller}`);
      if (answer.status === 401) t.match(answer.headers['www-authenticate'], /^Bearer/);
    }
  }
});
