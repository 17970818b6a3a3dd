import { join } from 'node:path';
import t from 'tap';

// The tests to run on another kernel, which prints one line of results.
for (const file of ['first-steps.ts', '../../conformance.test.ts'])
  t.spawn(process.execPath, ['--no-warnings', join(import.meta.dirname, file)], file);
