/**
 * Makes a daemon under test wait for captured output as long as it takes, and not 250 ms; the daemon preloads it
 * (`node --import`). So a test can act within that time. The daemon has no code for this.
 */
import { registerHooks } from 'node:module';

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith('/src/waits/output-end.ts')) return loaded;
    return { ...loaded, source: String(loaded.source).replace('OUTPUT_GRACE_MS = 250', 'OUTPUT_GRACE_MS = 3_600_000') };
  },
});
