/* What the children of the floors and of waitd do in the same measurement: the programs that are waited for. */
#include "floor.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Long enough for the parent to be asleep again when the child ends. */
static const struct timespec child_life = {.tv_nsec = 5 * 1000 * 1000};

void check(int ok, const char *call) {
  if (ok) return;
  fprintf(stderr, "floor: %s: %s\n", call, strerror(errno));
  exit(1);
}

int64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

volatile int64_t *stamp_in(const char *path) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  check(fd != -1, "open");
  void *page = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check(page != MAP_FAILED, "mmap");
  close(fd);
  return page;
}

void leave_stamp(const char *path) {
  volatile int64_t *stamp = stamp_in(path);
  *stamp = 0; /* takes the page fault now, not between the stamp and the exit */
  nanosleep(&child_life, NULL);
  *stamp = now();
  _exit(0);
}

/* Leaves no process behind, however its parent ends. */
void do_nothing(void) {
  check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
  for (;;) pause();
}

void kill_all(const char *stamp_path, const char *pids_path) {
  volatile int64_t *stamp = stamp_in(stamp_path);
  FILE *file = fopen(pids_path, "r");
  check(file != NULL, "fopen");
  int count = 0;
  static pid_t pids[1 << 16];
  while (count < 1 << 16 && fscanf(file, "%d", &pids[count]) == 1) count += 1;
  *stamp = now();
  for (int at = 0; at < count; at += 1) check(kill(pids[at], SIGKILL) == 0, "kill");
  exit(0);
}
