import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Connection } from './connection.ts';
import { callRate, exitLatency, floorExitLatency, floorSpawnRate, spawnRate } from './measures.ts';
import { buildFloor, startDaemon, startServer, stop } from './servers.ts';
import { median, spread } from './statistics.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    json: { type: 'string' },
    profile: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const IN_FLIGHT = 16;
const CONNECTIONS = 32;

interface Row {
  what: string;
  waitd: number[];
  floor: number[];
  target: string;
}

/** The headers and the body of a real EAGAIN, for the bare route to answer. */
function eagain(socketPath: string, path: string): Promise<{ headers: object; body: string }> {
  return new Promise((resolve) => {
    request({ socketPath, path, method: 'POST' }, (response) => {
      let body = '';
      response.on('data', (data) => {
        body += data;
      });
      const { 'retry-after': retry, link, 'cache-control': cache, 'x-request-id': id } = response.headers;
      response.on('end', () =>
        resolve({ headers: { 'retry-after': retry, link, 'cache-control': cache, 'x-request-id': id }, body }),
      );
    }).end();
  });
}

const directory = mkdtempSync(join(tmpdir(), 'waitd-bench-'));
const floor = buildFloor(directory);
const socket = join(directory, 'waitd.sock');
const daemon = await startDaemon(directory, values.profile);
const rows: Row[] = [];
const row = (what: string, target: string): Row => {
  rows.push({ what, waitd: [], floor: [], target });
  return rows.at(-1)!;
};

try {
  const spawns = row(`spawn /bin/true and collect, ${IN_FLIGHT} in flight, 1/s`, '>= 0.60');
  const p50 = row('exit to WebSocket, p50, us', '<= 2.5');
  const p99 = row('exit to WebSocket, p99, us', '<= 3');
  const rate = row(`waitid answers EAGAIN, ${CONNECTIONS} connections, 1/s`, '>= 0.85');
  const single = row('waitid answers EAGAIN, one connection, p50, us', '<= 1.25');

  const connection = await Connection.open(socket);
  const sleeper = await connection.post('/v1/handles', '{"spawn":{"argv":["sleep","3600"]},"nonblocking":true}');
  const path = `/v1/handles/${(JSON.parse(sleeper.body) as { id: string }).id}`;
  const { headers, body } = await eagain(socket, `${path}/waitid`);
  const bareSocket = join(directory, 'bare.sock');
  const bare = await startServer([join(import.meta.dirname, 'bare.ts'), bareSocket, JSON.stringify(headers), body]);
  try {
    await callRate(socket, `${path}/waitid`, CONNECTIONS, 500); // warm
    await callRate(bareSocket, '/', CONNECTIONS, 500);
    for (let run = 0; run < runs; run += 1) {
      process.stderr.write(`run ${run + 1} of ${runs}\n`);
      spawns.waitd.push(await spawnRate(socket, 2000, IN_FLIGHT));
      spawns.floor.push(floorSpawnRate(floor, 2000, IN_FLIGHT));
      const latency = await exitLatency(socket, floor, directory, 500);
      const least = floorExitLatency(floor, 500);
      p50.waitd.push(latency.p50);
      p50.floor.push(least.p50);
      p99.waitd.push(latency.p99);
      p99.floor.push(least.p99);
      rate.waitd.push((await callRate(socket, `${path}/waitid`, CONNECTIONS, 2000)).rate);
      rate.floor.push((await callRate(bareSocket, '/', CONNECTIONS, 2000)).rate);
      single.waitd.push((await callRate(socket, `${path}/waitid`, 1, 1000)).p50);
      single.floor.push((await callRate(bareSocket, '/', 1, 1000)).p50);
    }
  } finally {
    await stop(bare);
    await connection.post(`${path}/signal`, '{"signal":"SIGKILL"}');
    connection.close();
  }
} finally {
  await stop(daemon);
  if (!values.profile) rmSync(directory, { recursive: true });
}

console.log(`Node ${process.version}, Linux ${release()}, ${cpus().length} cores, median (min..max) of ${runs} runs\n`);
console.log('| what | waitd | floor | ratio | target |\n| --- | --- | --- | --- | --- |');
for (const { what, waitd, floor: least, target } of rows)
  console.log(
    `| ${what} | ${spread(waitd)} | ${spread(least)} | ${(median(waitd) / median(least)).toFixed(2)} | ${target} |`,
  );
if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows, null, 2));
if (values.profile) console.log(`\nprofiles in ${directory}`);
