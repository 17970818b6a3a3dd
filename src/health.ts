import { request } from 'node:http';

// The health check for container images without curl: node health.js [live | ready] [SOCKET]. It loads nothing else, to start fast.
const listens = /(?:^|,)\s*unix:([^,]+)/.exec(process.env.WAITD_LISTEN ?? '')?.[1];
const [what = 'live', socketPath = listens ?? '/run/waitd/waitd.sock'] = process.argv.slice(2);
const probe = request({ socketPath, path: what === 'ready' ? '/readyz' : '/livez' }, ({ statusCode }) =>
  process.exit(statusCode === 200 ? 0 : 1),
);
probe.on('error', () => process.exit(1));
probe.end();
