#!/usr/bin/env node
import { noteSignals } from './upgrade/early-signals.ts';

// Before all else is even loaded: until somebody listens for it, SIGHUP ends a process, and with it everything that an
// upgrade is there to keep.
noteSignals();
const { run } = await import('./command-line.ts');
await run(process.argv.slice(2));
