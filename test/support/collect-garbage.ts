/**
 * Lets a test measure the memory of a daemon, which preloads it (`node --import`). At SIGUSR2 it collects garbage and
 * writes the number of bytes in use to the file in MEMORY. The daemon has no code for this.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const file = process.env.MEMORY!;

process.on('SIGUSR2', () => {
  // Twice, because finalizers of the first collection release further objects.
  collect();
  setImmediate(() => {
    collect();
    const { heapUsed, external, rss } = process.memoryUsage();
    writeFileSync(`${file}.new`, JSON.stringify({ used: heapUsed + external, resident: rss }));
    renameSync(`${file}.new`, file);
  });
});
