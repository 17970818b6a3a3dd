/**
 * Builds programs that make a sequence of system calls, to prepare a new process before it executes the requested program. JavaScript
 * cannot run between fork and exec, and a shell cannot report which call failed with which errno.
 *
 * Such a program is a static ELF file without libraries. It consists of the code in `syscall-interpreter.ts` and a table of calls.
 */
import {
  type Architecture,
  DATA,
  listings,
  numbers,
  REPORT_SIZE,
  type SyscallName,
  TABLE,
} from './syscall-interpreter.ts';

/** The address of the code segment, which begins with the file's headers. */
const CODE = 0x40_0000;
const HEADERS = 64 + 3 * 56;
const DATA_OFFSET = 0x1000;

/** A multiple of every page size (4 to 64 KiB), so that one layout fits all kernels. */
const ALIGNMENT = 0x1_0000;

const CALL_SIZE = 80;

/** A position in the data of a program. Its address is known once the program is complete. */
export class Pointer {
  readonly offset: number;

  constructor(offset: number) {
    this.offset = offset;
  }
}

/** A reference to a call in the table; {@link SyscallProgram.place} sets its position. */
export class Label {
  position = -1;
}

/** The address of a word of a call: 0 the number, 1 to 6 the arguments, 7 the next call after success, 8 after failure, 9 after zero. */
export class WordOf {
  readonly call: Label;
  readonly word: number;

  constructor(call: Label, word: number) {
    this.call = call;
    this.word = word;
  }
}

/** As an argument: the address of the previous call's report, which holds its result and its address, eight bytes each. */
export const REPORT = Symbol('report');

export type Operand = number | Pointer | Label | WordOf | typeof REPORT;

/** The next call after each result. The default is the following call in the table, and `next` for zero. */
export interface Flow {
  next?: Label | number | undefined;
  failed?: Label | number | undefined;
  zero?: Label | number | undefined;
}

interface Call {
  number: number;
  operands: readonly Operand[];
  flow: Flow;
}

/** A program under construction: its calls in order, and the data that their arguments point to. */
export class SyscallProgram {
  readonly #calls: Call[] = [];
  readonly #data: Buffer[] = [];
  readonly #relocations: { at: number; to: Operand }[] = [];
  readonly #architecture: Architecture;
  readonly #origin: number;
  #size = 0;

  /** @param origin the address of the table; the default is that of a program in its own file */
  constructor(origin: number = TABLE, architecture: Architecture = process.arch as Architecture) {
    this.#origin = origin;
    this.#architecture = architecture;
  }

  /**
   * Adds a call.
   * @returns its position in the table, which identifies it in a report
   */
  call(name: SyscallName, operands: readonly Operand[], flow: Flow = {}): number {
    return this.#calls.push({ number: numbers[this.#architecture][name], operands, flow }) - 1;
  }

  /** Makes a label refer to the call that is added next. */
  place(label: Label): void {
    label.position = this.#calls.length;
  }

  /** Returns the address of a call, for a program that receives its next call while it runs. */
  addressOf(label: Label): number {
    return this.#origin + CALL_SIZE * label.position;
  }

  /** Adds bytes to the data, aligned to eight. */
  bytes(data: Buffer): Pointer {
    const pointer = new Pointer(this.#size);
    const padding = -data.length & 7;
    this.#data.push(data);
    if (padding > 0) this.#data.push(Buffer.alloc(padding));
    this.#size += data.length + padding;
    return pointer;
  }

  /** Adds a string with its terminating NUL. */
  text(text: string): Pointer {
    return this.bytes(Buffer.from(`${text}\0`));
  }

  /** Adds words of eight bytes: numbers and addresses. */
  words(words: readonly Operand[]): Pointer {
    const pointer = this.bytes(Buffer.alloc(8 * words.length));
    for (const [index, to] of words.entries()) this.#relocations.push({ at: pointer.offset + 8 * index, to });
    return pointer;
  }

  /** Adds a list of strings in the form of execve(2): addresses, then a null pointer. */
  strings(texts: readonly string[]): Pointer {
    return this.words([...texts.map((text) => this.text(text)), 0]);
  }

  /** Returns the table and the data as they must lie in memory from the origin on. */
  image(): Buffer {
    const table = Buffer.alloc(CALL_SIZE * this.#calls.length);
    const base = this.#origin + table.length;
    const addressOf = (operand: Operand): number => {
      if (typeof operand === 'number') return operand;
      if (operand === REPORT) return DATA;
      if (operand instanceof Pointer) return base + operand.offset;
      if (operand instanceof WordOf) return addressOf(operand.call) + 8 * operand.word;
      return this.addressOf(operand);
    };
    for (const [index, { number, operands, flow }] of this.#calls.entries()) {
      const at = CALL_SIZE * index;
      const following = this.#origin + at + CALL_SIZE;
      const next = flow.next === undefined ? following : addressOf(flow.next);
      const failed = flow.failed === undefined ? following : addressOf(flow.failed);
      const zero = flow.zero === undefined ? next : addressOf(flow.zero);
      for (const [word, value] of [number, ...operands.map(addressOf)].entries())
        writeWord(table, value, at + 8 * word);
      for (const [word, value] of [next, failed, zero].entries()) writeWord(table, value, at + 56 + 8 * word);
    }
    const data = Buffer.concat(this.#data, this.#size);
    for (const { at, to } of this.#relocations) writeWord(data, addressOf(to), at);
    return Buffer.concat([table, data]);
  }

  /** Returns the ELF file of the program. */
  file(): Buffer {
    const image = this.image();
    return Buffer.concat([headOf(this.#architecture, REPORT_SIZE + image.length), Buffer.alloc(REPORT_SIZE), image]);
  }

  /** Parses the 16 bytes of a {@link REPORT} that this program has written. */
  reportIn(bytes: Buffer): { result: number; position: number } {
    return {
      result: Number(bytes.readBigInt64LE(0)),
      position: (Number(bytes.readBigUInt64LE(8)) - this.#origin) / CALL_SIZE,
    };
  }
}

/** Writes a 64-bit word in two's complement. It needs two steps because JavaScript's bit operations have 32 bits. */
function writeWord(to: Buffer, value: number, at: number): void {
  to.writeInt32LE(value | 0, at);
  to.writeInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

/** Builds the part of the file before the data: ELF header, program headers, code (elf(5)). */
function headOf(architecture: Architecture, dataSize: number): Buffer {
  const code = Buffer.from(listings[architecture].map(([bytes]) => bytes).join(''), 'hex');
  const head = Buffer.alloc(DATA_OFFSET);
  head.write('\x7fELF\x02\x01\x01', 'latin1'); // 64 bits, little endian
  head.writeUInt16LE(2, 16); // ET_EXEC
  head.writeUInt16LE(architecture === 'x64' ? 62 : 183, 18); // EM_X86_64, EM_AARCH64
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(BigInt(CODE + HEADERS), 24); // the entry point
  head.writeBigUInt64LE(64n, 32); // offset of the program headers
  head.writeUInt16LE(64, 52);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(3, 56);
  const segment = (at: number, type: number, flags: number, offset: number, address: number, size: number): void => {
    head.writeUInt32LE(type, at);
    head.writeUInt32LE(flags, at + 4);
    for (const [index, value] of [offset, address, address, size, size, ALIGNMENT].entries())
      head.writeBigUInt64LE(BigInt(value), at + 8 + 8 * index);
  };
  segment(64, 1, 5, 0, CODE, HEADERS + code.length); // PT_LOAD, read and execute
  segment(64 + 56, 1, 6, DATA_OFFSET, DATA, dataSize); // PT_LOAD, read and write
  segment(64 + 112, 0x6474_e551, 6, 0, 0, 0); // PT_GNU_STACK: not executable
  code.copy(head, HEADERS);
  return head;
}
