/**
 * Builds programs that make a sequence of system calls, to prepare a new process before it executes the requested program. JavaScript
 * cannot run between fork and exec, and a shell cannot report which call failed with which errno.
 *
 * Such a program is a static ELF file without libraries. It consists of the fixed code below and a table of calls.
 */

/** The address of the data segment: the report, the table, then the data that arguments point to. */
const DATA = 0x41_1000;
/** The length of a report in bytes. */
export const REPORT_SIZE = 16;
const TABLE = DATA + REPORT_SIZE;

/** The address of the code segment, which begins with the file's headers. */
const CODE = 0x40_0000;
const HEADERS = 64 + 3 * 56;
const DATA_OFFSET = 0x1000;

/** A multiple of every page size (4 to 64 KiB), so that one layout fits all kernels. */
const ALIGNMENT = 0x1_0000;

/**
 * The interpreter for x64. `test/syscall-program.test.ts` assembles the text of each instruction and compares the bytes.
 *
 * A call in the table has ten words: its number, six arguments, and three addresses. Those are of the next call after a positive result,
 * a failure and zero. After every call the report holds its result and its address.
 */
const x64 = [
  ['bb10104100', 'mov ebx, 0x411010'],
  ['488b03', 'run: mov rax, [rbx]'],
  ['488b7b08', 'mov rdi, [rbx+8]'],
  ['488b7310', 'mov rsi, [rbx+16]'],
  ['488b5318', 'mov rdx, [rbx+24]'],
  ['4c8b5320', 'mov r10, [rbx+32]'],
  ['4c8b4328', 'mov r8, [rbx+40]'],
  ['4c8b4b30', 'mov r9, [rbx+48]'],
  ['0f05', 'syscall'],
  ['4889042500104100', 'mov [0x411000], rax'],
  ['48891c2508104100', 'mov [0x411008], rbx'],
  ['483d01f0ffff', 'cmp rax, -4095'],
  ['730b', 'jae failed'],
  ['4885c0', 'test rax, rax'],
  ['740c', 'jz zero'],
  ['488b5b38', 'mov rbx, [rbx+56]'],
  ['ebc0', 'jmp run'],
  ['488b5b40', 'failed: mov rbx, [rbx+64]'],
  ['ebba', 'jmp run'],
  ['488b5b48', 'zero: mov rbx, [rbx+72]'],
  ['ebb4', 'jmp run'],
] as const;

const arm64 = [
  ['140082d2', 'movz x20, #0x1000'],
  ['3408a0f2', 'movk x20, #0x41, lsl #16'],
  ['93420091', 'add x19, x20, #16'],
  ['680240f9', 'run: ldr x8, [x19]'],
  ['608640a9', 'ldp x0, x1, [x19, #8]'],
  ['628e41a9', 'ldp x2, x3, [x19, #24]'],
  ['649642a9', 'ldp x4, x5, [x19, #40]'],
  ['010000d4', 'svc #0'],
  ['804e00a9', 'stp x0, x19, [x20]'],
  ['1ffc3fb1', 'cmn x0, #4095'],
  ['82000054', 'b.hs failed'],
  ['a00000b4', 'cbz x0, zero'],
  ['731e40f9', 'ldr x19, [x19, #56]'],
  ['f6ffff17', 'b run'],
  ['732240f9', 'failed: ldr x19, [x19, #64]'],
  ['f4ffff17', 'b run'],
  ['732640f9', 'zero: ldr x19, [x19, #72]'],
  ['f2ffff17', 'b run'],
] as const;

/** The machine code of each architecture: each instruction's bytes and assembly source. */
export const listings = { x64, arm64 };
export type Architecture = keyof typeof listings;

/** System call numbers, from asm/unistd.h of each architecture. */
const numbers = {
  x64: {
    capset: 126,
    chdir: 80,
    clone: 56,
    close: 3,
    dup3: 292,
    execve: 59,
    exit_group: 231,
    faccessat: 269,
    fchdir: 81,
    fchown: 93,
    fcntl: 72,
    getpid: 39,
    ioctl: 16,
    mmap: 9,
    openat: 257,
    openat2: 437,
    ppoll: 271,
    prctl: 157,
    prlimit64: 302,
    read: 0,
    recvmsg: 47,
    rt_sigaction: 13,
    rt_sigprocmask: 14,
    setgroups: 116,
    setpgid: 109,
    setpriority: 141,
    setresgid: 119,
    setresuid: 117,
    setsid: 112,
    umask: 95,
    write: 1,
  },
  arm64: {
    capset: 91,
    chdir: 49,
    clone: 220,
    close: 57,
    dup3: 24,
    execve: 221,
    exit_group: 94,
    faccessat: 48,
    fchdir: 50,
    fchown: 55,
    fcntl: 25,
    getpid: 172,
    ioctl: 29,
    mmap: 222,
    openat: 56,
    openat2: 437,
    ppoll: 73,
    prctl: 167,
    prlimit64: 261,
    read: 63,
    recvmsg: 212,
    rt_sigaction: 134,
    rt_sigprocmask: 135,
    setgroups: 159,
    setpgid: 154,
    setpriority: 140,
    setresgid: 149,
    setresuid: 147,
    setsid: 157,
    umask: 166,
    write: 64,
  },
} as const;
export type SyscallName = keyof (typeof numbers)['x64'];

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
