/**
 * Changes the clocks of a daemon under test, which preloads it (`node --import`). The file in CLOCKS holds JSON:
 * `wallMs` is added to the wall clock, `bootMs` to CLOCK_BOOTTIME, and `bootId` replaces the kernel's boot id. The
 * daemon has no code for this.
 */
import fs, { readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import koffi from 'koffi';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const CLOCK_BOOTTIME = 7;

const moved = (): { wallMs?: number; bootMs?: number; bootId?: string } => {
  try {
    return JSON.parse(readFileSync(process.env.CLOCKS!, 'utf8'));
  } catch {
    return {};
  }
};

const RealDate = Date;
const now = (): number => RealDate.now() + (moved().wallMs ?? 0);
globalThis.Date = new Proxy(RealDate, {
  construct: (target, args) => Reflect.construct(target, args.length === 0 ? [now()] : args),
  get: (target, name) => (name === 'now' ? now : Reflect.get(target, name)),
});

const { readFileSync: read } = fs;
fs.readFileSync = ((...args: Parameters<typeof read>) =>
  args[0] === BOOT_ID ? (moved().bootId ?? read(...args)) : read(...args)) as typeof read;
syncBuiltinESMExports();

const { load } = koffi;
type Library = ReturnType<typeof load>;
koffi.load = ((path: string | null) => {
  const library: Library = load(path as string);
  return {
    func(prototype: string) {
      const original = library.func(prototype) as (...args: unknown[]) => number;
      if (!prototype.startsWith('int clock_gettime(')) return original;
      return (clock: number, result: Buffer) => {
        const answer = original(clock, result);
        const ms = clock === CLOCK_BOOTTIME ? (moved().bootMs ?? 0) : 0;
        result.writeBigInt64LE(result.readBigInt64LE(0) + BigInt(Math.floor(ms / 1000)), 0);
        return answer;
      };
    },
  };
}) as unknown as typeof load;
