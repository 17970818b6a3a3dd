/*
 * Reads its input, or with an argument the size of its terminal, into memory that nobody provides. The kernel then holds the lock of the
 * pipe, or of the size, until this process is killed.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **arguments) {
  int faults = syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API};
  char *memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct uffdio_register range = {.range = {.start = (unsigned long)memory, .len = 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (faults < 0 || ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &range)) {
    perror("userfaultfd");
    return 3;
  }
  puts("reading");
  fflush(stdout);
  return (count > 1 ? ioctl(0, TIOCGWINSZ, memory) : read(0, memory, 4096)) < 0;
}
