/**
 * Makes a daemon under test fail at a named step; the daemon preloads it (`node --import`). The file in FAULT names the
 * step, and the fault lasts while the file exists. The daemon has no code for this.
 */
import fs, { existsSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { StatementSync } from 'node:sqlite';
import koffi from 'koffi';

const file = process.env.FAULT!;
const WNOWAIT = 0x0100_0000;
const WEXITED = 4;

const faultNow = (): string | null => (existsSync(file) ? readFileSync(file, 'utf8').trim() : null);

function dieAt(step: string): void {
  if (faultNow() !== step) return;
  rmSync(file);
  process.kill(process.pid, 'SIGKILL');
}

function sqliteError(code: number, message: string): Error {
  return Object.assign(new Error(message), { code: 'ERR_SQLITE_ERROR', errcode: code });
}

type Run = typeof StatementSync.prototype.run;
const { run } = StatementSync.prototype;
StatementSync.prototype.run = function patched(this: StatementSync, ...values: Parameters<Run>) {
  const sql = this.sourceSQL;
  if (sql === 'BEGIN IMMEDIATE') {
    const fault = faultNow();
    if (fault === 'disk full') throw sqliteError(13, 'database or disk is full');
    if (fault === 'I/O error') throw sqliteError(10, 'disk I/O error');
    if (fault === 'damaged') {
      rmSync(file);
      throw sqliteError(11, 'database disk image is malformed');
    }
    if (fault === 'refused') {
      rmSync(file);
      throw sqliteError(19, 'constraint failed');
    }
  }
  if (sql === 'COMMIT' && faultNow() === 'disk full at commit') throw sqliteError(13, 'database or disk is full');
  return run.apply(this, values);
} as Run;

/** Faults whose names in the log differ from those in the journal. */
const logErrors: Record<string, string> = {
  'disk full': 'ENOSPC',
  'disk full at commit': 'ENOSPC',
  'I/O error': 'EIO',
};
const { writeSync } = fs;
fs.writeSync = ((...args: Parameters<typeof writeSync>) => {
  if (!readlinkSync(`/proc/self/fd/${args[0]}`).endsWith('/journal.log')) return writeSync(...args);
  dieAt('die before the write');
  const code = logErrors[faultNow() ?? ''];
  if (code !== undefined) throw Object.assign(new Error(code), { code });
  const written = writeSync(...args);
  dieAt('die between write and reap');
  return written;
}) as typeof writeSync;
syncBuiltinESMExports();

const { load } = koffi;
type Library = ReturnType<typeof load>;
koffi.load = ((path: string | null) => {
  const library: Library = load(path as string);
  return {
    func(prototype: string) {
      const original = library.func(prototype) as (...args: unknown[]) => number;
      if (prototype.startsWith('long sendmsg('))
        return (...args: unknown[]) => {
          // A request to fork carries descriptors (msg_controllen); a message that resumes a child does not.
          const isRequest = (args[1] as Buffer).readBigUInt64LE(40) > 0n;
          const fault = isRequest ? faultNow()?.match(/^spawn (\w+)$/)?.[1] : undefined;
          if (fault !== undefined) throw Object.assign(new Error(fault), { code: fault });
          dieAt(isRequest ? 'die before the spawn' : 'die before the release');
          const sent = original(...args);
          if (!isRequest) dieAt('die after the release');
          return sent;
        };
      if (prototype.includes('void *infop'))
        return (...args: unknown[]) => {
          const result = original(...args);
          const options = args[4] as number;
          if (result === 0 && (options & WEXITED) !== 0 && (options & WNOWAIT) === 0) dieAt('die after the reap');
          return result;
        };
      return original;
    },
  };
}) as unknown as typeof load;

process.on('SIGUSR2', () => {
  throw new Error('thrown for the test');
});
