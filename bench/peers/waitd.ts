import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExitTask } from '../clients/task.ts';
import { startDaemon } from '../daemon.ts';
import type { Candidate } from './peer.ts';

const WARM_UP = 50;

export const waitd: Candidate = {
  name: 'waitd',
  by: 'WebSocket',
  atLeast: null,
  samples: { whole: 200, quick: 50 },
  async start({ scene, child, file, ending }) {
    const { socket } = ending.use(await startDaemon(scene, undefined));
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
      version: string;
    };
    const task = { socket, warmUp: WARM_UP, child, file };
    return { version, measure: (count) => scene.client<ExitTask, number[]>('exit', { ...task, count }) };
  },
};
