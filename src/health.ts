import { request } from 'node:http';

// For probes, in images without curl: node health.js [live | ready] [SOCKET]. Small, so that it costs little each time.
const [what = 'live', socketPath = '/run/waitd/waitd.sock'] = process.argv.slice(2);
const asked = request({ socketPath, path: what === 'ready' ? '/readyz' : '/livez' }, ({ statusCode }) =>
  process.exit(statusCode === 200 ? 0 : 1),
);
asked.on('error', () => process.exit(1));
asked.end();
