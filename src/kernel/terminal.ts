import type { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const ioctl = bind('int ioctl(int fd, unsigned long request, void *argument)');

const TCGETS = 0x5401;

/** In struct termios of the kernel: four words of flags, the line discipline, then the characters. */
const CHARACTERS_AT = 17;
const VEOF = 4;

/**
 * Returns the EOF character of a terminal, as its programs have set it.
 * @param master the kernel answers for the terminal behind it (tty_ioctl(4))
 */
export function eofCharacterOf(master: Descriptor): Buffer {
  const settings = Buffer.alloc(64); // struct termios
  checked('ioctl', ioctl(master.fd, TCGETS, settings));
  return settings.subarray(CHARACTERS_AT + VEOF, CHARACTERS_AT + VEOF + 1);
}
