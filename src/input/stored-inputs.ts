import { Descriptor } from '../kernel/descriptor.ts';
import type { Passed } from '../kernel/notify.ts';
import type { InputKind, OpenDescription } from '../model/process.ts';

const NAME = /^waitd-(pipe|tty)-(\d{1,15})-(\d{1,20})$/;

/** An input that an earlier daemon has left. */
export interface LeftInput {
  /** The journal's number of the description. */
  description: number;
  kind: InputKind;
  descriptor: Descriptor;
  /** The inode number of its process in pidfs, by which it is known after a crash; `null` for one that was handed over. */
  inode: string | null;
}

/**
 * Returns the name by which the service manager stores an input.
 * @returns `null` before Linux 6.9: the process could not be identified after a restart
 */
export function inputName({ id, input, process }: OpenDescription): string | null {
  return process.inode === null ? null : `waitd-${input}-${id}-${process.inode}`;
}

export function isInputName(name: string): boolean {
  return NAME.test(name);
}

/** Returns the inputs that the service manager has kept, with their names. */
export function storedInputs(passed: readonly Passed[]): Map<string, LeftInput> {
  const found = new Map<string, LeftInput>();
  for (const { name, fd, kind } of passed) {
    const [, input, description, inode] = NAME.exec(name) ?? [];
    if (inode === undefined || (kind !== 'pipe' && kind !== 'terminal')) continue;
    found.get(name)?.descriptor.close(); // the manager allows a name to occur twice
    const descriptor = new Descriptor(fd);
    found.set(name, { description: Number(description), kind: input as InputKind, descriptor, inode });
  }
  return found;
}
