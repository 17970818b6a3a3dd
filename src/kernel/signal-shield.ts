import { byArchitecture } from './libc.ts';
import { MemoryFile } from './memory-file.ts';

/**
 * Keeps signals blocked across execve(2). The kernel preserves the mask, but Node.js clears it at startup, before JavaScript can
 * install handlers. A SIGHUP between the two would end the process. This preloaded library (ld.so(8)) skips that one call of
 * pthread_sigmask, so blocked signals stay blocked and pending until the daemon unblocks them.
 *
 * The library is an ELF file with one function and one word of data. If the loader ignores it, as for a program with file
 * capabilities, Node.js clears the mask as usual.
 */

/**
 * The code of pthread_sigmask. It skips the first call that sets the mask to SIGUSR1 alone and does not request the old mask. Node.js
 * makes this call under `--disable-sigusr1`. Every other call makes the system call.
 */
const code = {
  x64: [
    '83ff02', //             cmp edi, 2                 SIG_SETMASK
    '7523', //               jne call
    '4885d2', //             test rdx, rdx
    '751e', //               jne call
    '48813e00020000', //     cmp qword ptr [rsi], 0x200
    '7515', //               jne call
    '488d0d00000000', //     lea rcx, [rip+0]           the word, filled in below
    'b801000000', //         mov eax, 1
    '8701', //               xchg [rcx], eax
    '85c0', //               test eax, eax
    '7503', //               jne call
    '31c0', //               xor eax, eax
    'c3', //                 ret
    '49c7c208000000', // call: mov r10, 8                 the size of a set
    'b80e000000', //         mov eax, 14                rt_sigprocmask
    '0f05', //               syscall
    'f7d8', //               neg eax
    'c3', //                 ret
  ],
  arm64: [
    '1f080071', //           cmp w0, #2
    '81010054', //           b.ne call
    '620100b5', //           cbnz x2, call
    '290040f9', //           ldr x9, [x1]
    '3f0108f1', //           cmp x9, #0x200
    '01010054', //           b.ne call
    '09000010', //           adr x9, word            filled in below
    '2a0140b9', //           ldr w10, [x9]
    'aa000035', //           cbnz w10, call
    '2a008052', //           mov w10, #1
    '2a0100b9', //           str w10, [x9]
    '00008052', //           mov w0, #0
    'c0035fd6', //           ret
    '030180d2', //     call: mov x3, #8
    'e81080d2', //           mov x8, #135
    '010000d4', //           svc #0
    'e003004b', //           neg w0, w0
    'c0035fd6', //           ret
  ],
};

const HEADERS = 64 + 4 * 56;
const DATA_OFFSET = 0x1000;
/** A multiple of every page size (4 to 64 KiB). */
const ALIGNMENT = 0x1_0000;
const DATA = ALIGNMENT + DATA_OFFSET;
const NAME = 'pthread_sigmask';

/** Builds the ELF file (elf(5)): headers, hash table, symbols, names and code, then the writable data. */
export function shieldImage(
  architecture: 'x64' | 'arm64' = byArchitecture({ x64: 0, arm64: 1 }) === 0 ? 'x64' : 'arm64',
): Buffer {
  const hash = words32(1, 2, 1, 0, 0); // one bucket, two symbols
  const names = Buffer.from(`\0${NAME}\0`);
  const hashAt = HEADERS;
  const symbolsAt = align(hashAt + hash.length);
  const namesAt = symbolsAt + 48;
  const codeAt = align(namesAt + names.length);
  const dynamic = words64(4, hashAt, 5, namesAt, 6, symbolsAt, 10, names.length, 11, 24, 0, 0);
  const text = Buffer.from(code[architecture].join(''), 'hex');
  pointTo(text, architecture, DATA + dynamic.length - codeAt);

  const file = Buffer.alloc(DATA_OFFSET + dynamic.length + 8);
  file.write('\x7fELF\x02\x01\x01', 'latin1'); // 64 bits, little endian
  file.writeUInt16LE(3, 16); // ET_DYN
  file.writeUInt16LE(architecture === 'x64' ? 62 : 183, 18); // EM_X86_64, EM_AARCH64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(64n, 32); // offset of the program headers
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(4, 56);
  const segment = (index: number, type: number, flags: number, facts: readonly number[]): void => {
    const at = 64 + 56 * index;
    file.writeUInt32LE(type, at);
    file.writeUInt32LE(flags, at + 4);
    words64(...facts).copy(file, at + 8);
  };
  const size = dynamic.length + 8;
  segment(0, 1, 5, [0, 0, 0, codeAt + text.length, codeAt + text.length, ALIGNMENT]); // PT_LOAD, read and execute
  segment(1, 1, 6, [DATA_OFFSET, DATA, DATA, size, size, ALIGNMENT]); // PT_LOAD, read and write
  segment(2, 2, 6, [DATA_OFFSET, DATA, DATA, dynamic.length, dynamic.length, 8]); // PT_DYNAMIC
  segment(3, 0x6474_e551, 6, [0, 0, 0, 0, 0, 16]); // PT_GNU_STACK: not executable
  hash.copy(file, hashAt);
  file.writeUInt32LE(1, symbolsAt + 24); // its name
  file.writeUInt8(0x12, symbolsAt + 28); // STB_GLOBAL, STT_FUNC
  file.writeUInt16LE(1, symbolsAt + 30); // any section index but SHN_UNDEF: the symbol is defined here
  words64(codeAt, text.length).copy(file, symbolsAt + 32);
  names.copy(file, namesAt);
  text.copy(file, codeAt);
  dynamic.copy(file, DATA_OFFSET);
  return file;
}

/** Patches the offset of the data word into the instruction that loads its address. */
function pointTo(text: Buffer, architecture: 'x64' | 'arm64', distance: number): void {
  if (architecture === 'x64') {
    const at = text.indexOf('488d0d00000000', 'hex');
    text.writeInt32LE(distance - (at + 7), at + 3);
  } else {
    const at = text.indexOf('09000010', 'hex');
    const offset = distance - at;
    text.writeUInt32LE((0x1000_0009 | ((offset & 3) << 29) | ((offset >> 2) << 5)) >>> 0, at);
  }
}

const align = (at: number): number => (at + 7) & ~7;

function words32(...values: readonly number[]): Buffer {
  return Buffer.from(new Uint32Array(values).buffer);
}

function words64(...values: readonly number[]): Buffer {
  return Buffer.from(new BigUint64Array(values.map(BigInt)).buffer);
}

/** The variable that holds the number of the library's descriptor for the next image. */
const VARIABLE = 'WAITD_SIGNAL_SHIELD';

/** A list of paths, separated by colons or spaces (ld.so(8)). */
const PRELOAD = 'LD_PRELOAD';

/**
 * Writes the library to a memory file that stays open across execve(2).
 * @returns the file, and the environment variables that make the next image preload it
 * @throws {SystemError} EMFILE, ENFILE, ENOMEM
 */
export function makeShield(): { file: MemoryFile; environment: Record<string, string> } {
  const file = MemoryFile.create('waitd-signals');
  file.write(shieldImage());
  file.keepOverExec();
  const others = process.env[PRELOAD];
  const path = `/proc/self/fd/${file.fd}`;
  return { file, environment: { [VARIABLE]: String(file.fd), [PRELOAD]: others ? `${path}:${others}` : path } };
}

/** Removes the library from the environment and closes its file, so that children inherit neither. */
export function endShield(): void {
  const fd = process.env[VARIABLE];
  if (fd === undefined) return;
  delete process.env[VARIABLE];
  const [, others] = /^[^:]*:?(.*)$/s.exec(process.env[PRELOAD] ?? '')!;
  if (others) process.env[PRELOAD] = others;
  else delete process.env[PRELOAD];
  new MemoryFile(Number(fd)).close();
}
