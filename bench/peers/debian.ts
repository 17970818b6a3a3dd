import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Skipped } from '../measure.ts';
import type { Scene } from '../scene.ts';

const SCRIPT = join(import.meta.dirname, 'debian.sh');

/**
 * Runs debian.sh.
 * @throws {Skipped} if this is not Debian, or the packages are unavailable
 */
export async function debian(scene: Scene, ...args: string[]): Promise<void> {
  if (!existsSync('/usr/bin/apt-get')) throw new Skipped('it needs Debian, and apt-get is missing');
  try {
    await scene.run(SCRIPT, ...args);
  } catch {
    throw new Skipped(`Debian's packages are unavailable: debian.sh ${args.join(' ')}`);
  }
}
