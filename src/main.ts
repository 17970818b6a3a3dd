#!/usr/bin/env node
import { noteSignals } from './lifecycle/early-signals.ts';

// Before all else is even loaded: until somebody listens for it, SIGHUP ends a process, and with it everything that an
// upgrade is there to keep, and SIGUSR1 opens a debugger.
noteSignals();
// Before anything is loaded that an older Node.js would call a syntax error.
if (Number.parseInt(process.versions.node, 10) < 24) {
  process.stderr.write(`waitd: this is Node.js ${process.versions.node}, and it takes 24 or newer\n`);
  process.exit(1);
}
const { run } = await import('./command-line.ts');
await run(process.argv.slice(2));
