/** A bare server beside the daemon: its latency is that of the machine. Its argument is the socket's path. */
import { createServer } from 'node:http';

createServer((_request, response) => response.end('{"status":"ok"}')).listen(process.argv[2], () =>
  process.send?.('ready'),
);
