/**
 * Divides every time limit in one file of src by 20 in a daemon under test, which preloads it (`node --import`). So a
 * test can wait for each limit. SHORT_LIMITS names the file. The daemon has no code for this.
 */
import { registerHooks } from 'node:module';

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith(`/src/${process.env.SHORT_LIMITS}`)) return loaded;
    const short = String(loaded.source).replace(
      /(_MS = )([\d_]+)/g,
      (_, name: string, ms: string) => `${name}${Number(ms.replaceAll('_', '')) / 20}`,
    );
    return { ...loaded, source: short };
  },
});
