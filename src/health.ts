import { request } from 'node:http';

// For probes, in images without curl: node health.js [live | ready] [SOCKET]. Small, so that it costs little each time.
const listens = /(?:^|,)\s*unix:([^,]+)/.exec(process.env.WAITD_LISTEN ?? '')?.[1];
const [what = 'live', socketPath = listens ?? '/run/waitd/waitd.sock'] = process.argv.slice(2);
const asked = request({ socketPath, path: what === 'ready' ? '/readyz' : '/livez' }, ({ statusCode }) =>
  process.exit(statusCode === 200 ? 0 : 1),
);
asked.on('error', () => process.exit(1));
asked.end();
