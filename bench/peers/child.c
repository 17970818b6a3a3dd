/*
 * The process whose exit is measured, the same for all peers: writes CLOCK_MONOTONIC into FILE, 8 bytes, just before it
 * exits.
 *
 *   child stamp FILE [LIFE_MS]         lives 5 ms by default
 *
 * Linked statically, so that it can be the whole image of a container.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *stamp_in(const char *path) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  void *page = fd == -1 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page != MAP_FAILED) return page;
  perror(path);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4 || strcmp(argv[1], "stamp") != 0) {
    fprintf(stderr, "usage: child stamp FILE [LIFE_MS]\n");
    return 100;
  }
  long life_ms = argc == 4 ? atol(argv[3]) : 5;
  struct timespec life = {.tv_sec = life_ms / 1000, .tv_nsec = life_ms % 1000 * 1000 * 1000};
  volatile int64_t *stamp = stamp_in(argv[2]);
  *stamp = 0; /* takes the page fault now, not between the stamp and the exit */
  nanosleep(&life, NULL);
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  *stamp = at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
  _exit(0);
}
