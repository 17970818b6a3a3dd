/**
 * Preloaded into a daemon under test (`node --import`): at SIGUSR2 it collects garbage and writes to the file that MEMORY names how many
 * bytes are still in use. Nothing in the daemon itself knows of this.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const file = process.env.MEMORY!;

process.on('SIGUSR2', () => {
  // Twice, since finalizers of the first free what only they held.
  collect();
  setImmediate(() => {
    collect();
    const { heapUsed, external, rss } = process.memoryUsage();
    writeFileSync(`${file}.new`, JSON.stringify({ used: heapUsed + external, resident: rss }));
    renameSync(`${file}.new`, file);
  });
});
