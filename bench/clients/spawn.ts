/**
 * Spawns and collects with a number of processes in flight, each on its own connection; prints the elapsed nanoseconds.
 */
import { Connection, post } from './connection.ts';
import { report, type SpawnTask, taskOf } from './task.ts';

const { socket, count, warmUp, inFlight } = taskOf<SpawnTask>();
const spawnRequest = post('/v1/handles', { spawn: { argv: ['/bin/true'] } });

/** @returns the nanoseconds from the first request to the last answer */
async function spawnAndCollect(total: number): Promise<number> {
  let left = total;
  const worker = async (): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const next = (): void => {
      if (left === 0) {
        resolve();
        return;
      }
      left -= 1;
      connection.send(spawnRequest);
    };
    const connection = await Connection.open(
      socket,
      ({ status, head, body }) => {
        if (status === 201) connection.send(post(`/v1/handles/${idOf(body)}/waitid`));
        else if (status === 200 && body.includes('"exitCode":0')) next();
        else reject(new Error(`not spawned and collected: ${head} ${body}`));
      },
      reject,
    );
    next();
    await promise.finally(() => connection.close());
  };
  const start = process.hrtime.bigint();
  await Promise.all(Array.from({ length: inFlight }, worker));
  return Number(process.hrtime.bigint() - start);
}

function idOf(body: string): string {
  const at = body.indexOf('"id":"') + 6;
  return body.slice(at, body.indexOf('"', at));
}

await spawnAndCollect(warmUp);
report(await spawnAndCollect(count));
