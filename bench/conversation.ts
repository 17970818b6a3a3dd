import type { ConversationResult, ConversationTask } from './clients/conversation.ts';
import { startWarmDaemon } from './daemon.ts';
import type { Measure, Measurement } from './measure.ts';
import { percentile } from './statistics.ts';

const BYTES = 100 * 2 ** 20;
const zeros = `head -c ${BYTES} /dev/zero`;

/** What is measured of a program's pipes, and of its terminal in raw mode. */
const ways = {
  pipes: { spawn: { stdin: 'pipe', stdout: 'capture' }, echo: ['cat'], sink: ['sh', '-c', 'cat >/dev/null'] },
  'a terminal': { spawn: { tty: { rows: 24, cols: 80 } }, echo: ['sh', '-c', 'stty raw -echo; exec cat'], sink: null },
};

/** Measures a byte from an attached client through a program and back, and the rates of 100 MiB into and out of a program. */
export const measureConversation: Measurement = async (scene, _floor, { runs, exits: echoes, profile }) => {
  await using daemon = await startWarmDaemon(scene, profile);
  const measures: Measure[] = [];
  for (const [what, way] of Object.entries(ways)) {
    const source = ['sh', '-c', way.sink === null ? `stty raw; ${zeros}` : zeros];
    const task: ConversationTask = { socket: daemon.socket, ...way, source, echoes, bytes: BYTES };
    const results: ConversationResult[] = [];
    for (let run = 0; run < runs; run += 1) results.push(await scene.client('conversation', task));
    const add = (name: string, unit: string, waitd: number[], target: Measure['target']): void => {
      measures.push({ what: `${name} ${what}`, unit, waitd, floor: null, target });
    };
    for (const percent of [50, 99])
      add(
        `echo of a byte, p${percent}, through`,
        'us',
        results.map((result) => percentile(result.echoes, percent) / 1000),
        { atMost: percent === 50 ? 500 : 5000 },
      );
    const megabytes = (rate: number): number => rate / 1e6;
    if (way.sink !== null)
      add(
        '100 MiB of input through',
        'MB/s',
        results.map((result) => megabytes(result.in)),
        { atLeast: 100 },
      );
    add(
      '100 MiB of output to an attached client through',
      'MB/s',
      results.map((result) => megabytes(result.out)),
      {
        atLeast: 50,
      },
    );
  }
  return measures;
};
