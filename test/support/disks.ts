import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  rmdirSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';

const TMPFS_MAGIC = 0x0102_1994;

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw error ?? new Error(`${command}: ${stderr}`);
  return stdout.trim();
}

function unmount(directory: string): void {
  spawnSync('umount', ['-l', directory]);
}

/**
 * Mounts a small tmpfs, so that a test can fill it without filling the machine's disk.
 * @throws {Error} if the mounted file system is not that tmpfs
 */
function mountSmall(directory: string, mebibytes: number): void {
  run('mount', '-t', 'tmpfs', '-o', `size=${mebibytes}m,mode=0700`, 'tmpfs', directory);
  const { type, blocks, bsize } = statfsSync(directory);
  if (type !== TMPFS_MAGIC || blocks * bsize > mebibytes << 20 || isOneWithItsParent(directory))
    throw new Error(`${directory} is not the tmpfs that should be mounted there`);
}

const isOneWithItsParent = (directory: string): boolean => statSync(directory).dev === statSync(dirname(directory)).dev;

/** Tries an action once. @returns the reason why it cannot be tested on this machine */
function unlessItFails(attempt: (directory: string) => void): { skip?: string } {
  if (process.getuid!() !== 0) return { skip: 'only root can mount a disk' };
  const directory = mkdtempSync(join(tmpdir(), 'waitd-test-disk-'));
  try {
    attempt(directory);
    return {};
  } catch (error) {
    return { skip: `no disk can be mounted here: ${(error as Error).message}` };
  } finally {
    unmount(directory);
    rmdirSync(directory);
  }
}

/** The options of a test that needs {@link smallDisk}. */
export const withSmallDisk = unlessItFails((directory) => mountSmall(directory, 1));

/** Mounts a disk of a few MiB in a directory for as long as a test lasts. */
export function smallDisk(t: Test, directory: string, mebibytes: number): void {
  t.teardown(() => unmount(directory));
  mountSmall(directory, mebibytes);
}

/** Fills a small disk, and never writes more than it holds. @returns the file that fills it */
export function fill(directory: string): string {
  const { type, blocks, bsize } = statfsSync(directory);
  if (type !== TMPFS_MAGIC || isOneWithItsParent(directory)) throw new Error(`${directory} is not a small disk`);
  const filler = join(directory, 'filler');
  spawnSync('dd', ['if=/dev/zero', `of=${filler}`, `bs=${bsize}`, `count=${blocks}`]);
  return filler;
}

/** An ext4 file system in a file. */
export class Ext4 {
  readonly #image: string;
  readonly #directory: string;

  private constructor(image: string, directory: string) {
    this.#image = image;
    this.#directory = directory;
  }

  static make(image: string, directory: string): Ext4 {
    writeFileSync(image, '');
    truncateSync(image, 16 << 20);
    run('mkfs.ext4', '-q', '-F', image);
    return new Ext4(image, directory);
  }

  mount(options = 'loop'): void {
    run('mount', '-o', options, this.#image, this.#directory);
    this.#device(); // throws if another file system is mounted there
  }

  unmount(): void {
    unmount(this.#directory);
  }

  /** Triggers the reaction of ext4 to a damaged disk. */
  fail(): void {
    run('sync', '-f', this.#directory); // data that is only in the cache is lost with the file system
    writeFileSync(`/sys/fs/ext4/${this.#device()}/trigger_fs_error`, '1');
  }

  /** Mounts a repaired copy. Open files stay on the old file system. */
  repaired(): Ext4 {
    const image = `${this.#image}-repaired`;
    copyFileSync(this.#image, image);
    spawnSync('e2fsck', ['-p', image]); // it exits with 1 after a repair
    return new Ext4(image, this.#directory);
  }

  #device(): string {
    const device = run('findmnt', '-no', 'SOURCE', this.#directory).split('/').at(-1) ?? '';
    if (!/^loop\d+$/.test(device)) throw new Error(`${this.#directory} is on ${device}, not on a loop device`);
    if (!existsSync(`/sys/fs/ext4/${device}/trigger_fs_error`))
      throw new Error('this kernel cannot trigger errors of ext4');
    return device;
  }
}

/** The options of a test that needs {@link Ext4}. */
export const withExt4 = unlessItFails((directory) => {
  mountSmall(directory, 32);
  const inner = mkdtempSync(join(directory, 'ext4-'));
  const disk = Ext4.make(join(directory, 'image'), inner);
  try {
    disk.mount();
  } finally {
    disk.unmount();
  }
});
