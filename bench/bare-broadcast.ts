/** The floor of a push: a `ws` server that sends one prepared frame to every client for every byte that it receives. */
import { createServer } from 'node:http';
import { createServer as createNetServer } from 'node:net';
import { WebSocketServer } from 'ws';
import { report, taskOf } from './clients/task.ts';

export interface BareBroadcastTask {
  socket: string;
  /** The socket that receives the bytes: one per event. */
  stimulus: string;
  frame: string;
}

const { socket, stimulus, frame } = taskOf<BareBroadcastTask>();
const bytes = Buffer.from(frame);
const http = createServer();
const server = new WebSocketServer({ server: http, perMessageDeflate: false });
server.on('connection', (client) => client.send('{"type":"hello"}'));
const stimuli = createNetServer((connection) =>
  connection.on('data', (events) => {
    for (const _ of events) for (const client of server.clients) client.send(bytes, { binary: false });
  }),
);
stimuli.listen(stimulus, () => http.listen(socket, () => report({ msg: 'ready' })));
