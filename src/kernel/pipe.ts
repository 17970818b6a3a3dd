import { Descriptor } from './descriptor.ts';
import { bind, checked } from './libc.ts';

const pipe2 = bind('int pipe2(void *fds, int flags)');
const ioctl = bind('int ioctl(int fd, unsigned long request, void *argument)');
const O_CLOEXEC = 0o2000000;
const FIONREAD = 0x541b;

/** A pipe, both ends close-on-exec; writing never waits. */
export function makePipe(): { reader: Descriptor; writer: Descriptor } {
  const fds = Buffer.alloc(8);
  checked('pipe2', pipe2(fds, O_CLOEXEC));
  const writer = new Descriptor(fds.readInt32LE(4));
  writer.nonblocking = true;
  return { reader: new Descriptor(fds.readInt32LE(0)), writer };
}

/** How many bytes wait in a pipe. */
export function unread(reader: Descriptor): number {
  const count = Buffer.alloc(4);
  checked('ioctl', ioctl(reader.fd, FIONREAD, count));
  return count.readInt32LE(0);
}
