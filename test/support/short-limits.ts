/**
 * Preloaded into a daemon under test (`node --import`), it makes every time in src/http/limits.ts a twentieth of what it is, so
 * that a test sees them pass. Nothing in the daemon itself knows of this.
 */
import { registerHooks } from 'node:module';

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (!url.endsWith('/src/http/limits.ts')) return loaded;
    const short = String(loaded.source).replace(
      /(_MS = )([\d_]+)/g,
      (_, name: string, ms: string) => `${name}${Number(ms.replaceAll('_', '')) / 20}`,
    );
    return { ...loaded, source: short };
  },
});
