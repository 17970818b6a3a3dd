import t from 'tap';
import { Daemon, type Response } from './support/harness.ts';

const daemon = await Daemon.start(t);
const { id } = await daemon.spawn(['printf', '0123456789'], {}, { stdout: 'capture' });
await daemon.waitid(id);
const get = (headers: Record<string, string>, method = 'GET'): Promise<Response> =>
  daemon.request(method, `/v1/handles/${id}/stdout`, { headers });

t.test('ranges of output follow RFC 9110', async (t) => {
  const parts: [range: string, text: string, at: string][] = [
    ['bytes=2-4', '234', '2-4'],
    ['Bytes=9-', '9', '9-9'],
    ['bytes=-3', '789', '7-9'],
    ['bytes=-99999999999999999999', '0123456789', '0-9'],
    ['bytes=8-99999999999999999999', '89', '8-9'],
  ];
  for (const [range, text, at] of parts)
    t.match(await get({ range }), { status: 206, text, headers: { 'content-range': `bytes ${at}/10` } }, range);
  for (const range of ['bytes=0-1,4-5', 'bytes=5-2', 'lines=1-2', 'bytes=-', 'bytes=a-b', 'bytes 0-1', ''])
    t.match(await get({ range }), { status: 200, text: '0123456789' }, `${range} is ignored`);
  for (const range of ['bytes=10-', 'bytes=99999999999999999999-', 'bytes=-0']) {
    const { status, headers, body } = await get({ range });
    t.match(
      { status, headers, body },
      { status: 416, headers: { 'content-range': 'bytes */10' }, body: { errno: 'EPROTO' } },
    );
  }
  t.match(await get({ range: 'bytes=2-4' }, 'HEAD'), { status: 200, headers: { 'content-length': '10' } });
});

t.test('If-Range never holds, so the whole output is sent; a failed precondition is 412', async (t) => {
  for (const condition of ['"etag"', 'W/"etag"', 'Sat, 31 Jan 2026 12:00:00 GMT'])
    for (const range of ['bytes=2-4', 'bytes=99-'])
      t.match(await get({ range, 'if-range': condition }), { status: 200, text: '0123456789' }, condition);
  t.equal((await get({ 'if-match': '"etag"' })).body.status, 412);
  t.equal((await get({ 'if-match': '*', 'if-none-match': '"etag"' })).status, 200);
  const close = { headers: { 'if-match': '"etag"' } };
  t.match((await daemon.request('DELETE', `/v1/handles/${id}`, close)).body, { status: 412, errno: 'EPROTO' });
  t.equal((await daemon.get(`/v1/handles/${id}`)).status, 200, 'the request had no effect');
});

t.test('every stream tells proxies not to buffer it', async (t) => {
  const path = `/v1/handles/${id}/stdout?follow=1`;
  t.equal((await daemon.get(path)).headers['x-accel-buffering'], 'no');
  const events = await daemon.request('HEAD', '/v1/events', { headers: { accept: 'text/event-stream' } });
  t.equal(events.headers['x-accel-buffering'], 'no');
});

t.teardown(() => daemon.stop());
