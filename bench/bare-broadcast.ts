/** The floor of a push: a `ws` server that sends one frame, bytes that are ready made, to every client for every byte that it is sent. */
import { createServer } from 'node:http';
import { createServer as createNetServer } from 'node:net';
import { WebSocketServer } from 'ws';
import { report, taskOf } from './clients/task.ts';

export interface BareBroadcastTask {
  socket: string;
  /** Where the bytes come: one for each event. */
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
