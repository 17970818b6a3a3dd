import { join } from 'node:path';
import type { BareBroadcastTask } from './bare-broadcast.ts';
import { ask, get } from './clients/connection.ts';
import type { BroadcastTask } from './clients/task.ts';
import { startDaemon } from './daemon.ts';
import { hold } from './held.ts';
import { inTurns, type Measurement } from './measure.ts';
import type { Scene, Server } from './scene.ts';

const SUBSCRIBERS = 200;

/** The daemon's default limit of bytes buffered for a subscriber before it is cut off. */
const SOCKET_BUFFER = 2 ** 20;

const WARM_UP_EVENTS = 100;

/**
 * Measures frames per second to many WebSockets, beside a bare `ws` server that sends one prepared frame to each client
 * for each byte of a burst.
 *
 * The events are the exits of processes that are killed at once, so they arrive faster than they can be sent, as the
 * bytes do. The daemon's work for an exit is done once for all subscribers, and spawning is over by then. A burst is no
 * larger than the buffer limit of one subscriber, so that none is cut off.
 */
export const measureBroadcast: Measurement = async (scene, floor, { runs, handles, profile }) => {
  await using daemon = await startDaemon(scene, profile);
  const waitd = async (events: number): Promise<number> => {
    const { pidsFile } = await hold(scene, daemon, floor, events);
    const stimulus = { command: floor, args: ['kill', scene.stampFile(), pidsFile] };
    return send({ socket: daemon.socket, subscribers: SUBSCRIBERS, events, stimulus });
  };
  const send = (task: BroadcastTask): Promise<number> => scene.client('broadcast', task);
  await waitd(WARM_UP_EVENTS);
  const frame = await frameOfAnExit(daemon);
  const events = Math.min(handles, Math.floor(SOCKET_BUFFER / frame.length));

  const bareTask: BareBroadcastTask = { socket: scene.path('bare.sock'), stimulus: scene.path('stimulus.sock'), frame };
  await using server = await startBare(scene, bareTask);
  const bare = (count: number): Promise<number> => {
    const stimulus = { socket: bareTask.stimulus };
    return send({ socket: server.socket, subscribers: SUBSCRIBERS, events: count, stimulus });
  };
  await bare(WARM_UP_EVENTS);

  const measure = {
    what: `frames of ${events} events to ${SUBSCRIBERS} WebSockets`,
    unit: '/s',
    waitd: [] as number[],
    floor: [] as number[],
    target: { atLeast: 0.8 },
  };
  await inTurns(
    runs,
    async () => void measure.waitd.push(await waitd(events)),
    async () => void measure.floor.push(await bare(events)),
  );
  return [measure];
};

async function frameOfAnExit({ socket }: Server): Promise<string> {
  const { body } = await ask(socket, get('/v1/events?type=exited&limit=1'));
  return JSON.stringify((JSON.parse(body) as { events: object[] }).events[0]);
}

function startBare(scene: Scene, task: BareBroadcastTask): Promise<Server> {
  return scene.serve(task.socket, join(import.meta.dirname, 'bare-broadcast.ts'), JSON.stringify(task));
}
