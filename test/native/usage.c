/* Uses known amounts, says so, and waits; ends at once with 0 threads: THREADS DESCRIPTORS MIB FILE BYTES CPU_MS */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long cpu_ms;

static void *burn(void *unused) {
  struct timespec now;
  do
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < cpu_ms);
  return unused;
}

static void *sleep_on(void *unused) {
  pause();
  return unused;
}

int main(int count, char **argument) {
  if (count != 7) return 2;
  pthread_t thread;
  cpu_ms = atol(argument[6]);
  /* This thread has ended when the usage is read. */
  pthread_create(&thread, NULL, burn, NULL);
  pthread_join(thread, NULL);
  if (atol(argument[1]) == 0) return 0;
  for (long left = atol(argument[1]) - 1; left > 0; left -= 1) pthread_create(&thread, NULL, sleep_on, NULL);
  for (long left = atol(argument[2]) - 3; left > 0; left -= 1)
    if (open("/dev/null", O_RDONLY) < 0) return 3;
  size_t size = atol(argument[3]) << 20;
  memset(malloc(size), 1, size);
  int file = open(argument[4], O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (long left = atol(argument[5]); left > 0; left -= 4096) {
    static char block[4096];
    if (write(file, block, sizeof block) != sizeof block) return 4;
  }
  close(file);
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  printf("%ld\n", now.tv_sec * 1000000 + now.tv_nsec / 1000);
  fflush(stdout);
  pause();
}
