#!/usr/bin/env node
import { catchSignals } from './lifecycle/early-signals.ts';

// First of all: without a handler SIGHUP ends the process, and with it everything that an upgrade preserves, and SIGUSR1 starts the
// inspector.
catchSignals();
// Before any module that an older Node.js cannot parse.
if (Number.parseInt(process.versions.node, 10) < 24) {
  process.stderr.write(`waitd: this is Node.js ${process.versions.node}, but waitd needs 24 or later\n`);
  process.exit(1);
}
const { run } = await import('./command-line.ts');
await run(process.argv.slice(2));
