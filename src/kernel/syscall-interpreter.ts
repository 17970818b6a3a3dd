/**
 * The fixed machine code of a program of system calls, which reads its table of calls, and the numbers of the calls. The table is built
 * by {@link SyscallProgram}.
 */

/** The address of the data segment: the report, the table, then the data that arguments point to. */
export const DATA = 0x41_1000;
/** The length of a report in bytes. */
export const REPORT_SIZE = 16;
export const TABLE = DATA + REPORT_SIZE;

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
export const numbers = {
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
