/** A bare server beside the daemon: what its answers take is what the machine takes. Its socket's path is its argument. */
import { createServer } from 'node:http';

createServer((_request, response) => response.end('{"status":"ok"}')).listen(process.argv[2], () =>
  process.send?.('ready'),
);
