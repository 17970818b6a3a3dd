/** Sends one request repeatedly on several connections; prints the number of answers and their latencies. */
import { setTimeout } from 'node:timers/promises';
import { percentile, quantiles } from '../statistics.ts';
import { Connection } from './connection.ts';
import { type LoadResult, type LoadTask, report, taskOf } from './task.ts';

export interface LoadDistribution extends LoadResult {
  /** Latencies for a picture: the least, the greatest, and values at equal steps of rank between them. */
  samplesUs: number[];
}

const SAMPLES = 2000;
const shares = Array.from({ length: SAMPLES }, (_, at) => at / (SAMPLES - 1));

const { socket, request, status, connections, warmUpMs, durationMs } = taskOf<LoadTask>();

let measuring = false;
let stopped = false;
let answers = 0;
const latenciesUs: number[] = [];

async function keepAsking(): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let sentAt = 0;
  const send = (): void => {
    sentAt = performance.now();
    connection.send(request);
  };
  const connection = await Connection.open(
    socket,
    (answer) => {
      if (answer.status !== status) {
        reject(new Error(`${status} expected: ${answer.head} ${answer.body}`));
        return;
      }
      if (measuring) {
        answers += 1;
        latenciesUs.push((performance.now() - sentAt) * 1000);
      }
      if (stopped) resolve();
      else send();
    },
    reject,
  );
  send();
  await promise.finally(() => connection.close());
}

async function measure(): Promise<LoadDistribution> {
  await setTimeout(warmUpMs);
  const cpuBefore = process.cpuUsage();
  const start = performance.now();
  measuring = true;
  await setTimeout(durationMs);
  measuring = false;
  const elapsedMs = performance.now() - start;
  const cpu = process.cpuUsage(cpuBefore);
  stopped = true;
  return {
    perSecond: (answers * 1000) / elapsedMs,
    p50Us: percentile(latenciesUs, 50),
    samplesUs: quantiles(latenciesUs, shares),
    busy: (cpu.user + cpu.system) / 1000 / elapsedMs,
  };
}

const [result] = await Promise.all([measure(), ...Array.from({ length: connections }, keepAsking)]);
report(result);
