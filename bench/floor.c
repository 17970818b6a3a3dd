/*
 * What the kernel itself can do, in C: the floors that waitd is measured beside.
 *
 *   floor spawn COUNT IN_FLIGHT        spawns and collects /bin/true; prints the nanoseconds it took
 *   floor exit COUNT FILE              from the stamp in FILE to waitid's return; prints nanoseconds, one a line
 *   floor stamp FILE                   the child of `exit`: stamps CLOCK_MONOTONIC into FILE just before it ends
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

extern char **environ;

/* Long enough that whoever spawned the child is asleep again when it ends, and that the machine is idle between two. */
static const struct timespec child_life = {.tv_nsec = 5 * 1000 * 1000};
static const struct timespec between = {.tv_nsec = 2 * 1000 * 1000};

static void check(int ok, const char *call) {
  if (ok) return;
  fprintf(stderr, "floor: %s: %s\n", call, strerror(errno));
  exit(1);
}

static int64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static volatile int64_t *stamp_in(const char *path) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  check(fd != -1, "open");
  void *page = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  check(page != MAP_FAILED, "mmap");
  return page;
}

static int spawn(int epoll, char *const argv[]) {
  pid_t pid;
  errno = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
  check(errno == 0, "posix_spawn");
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  check(pidfd != -1, "pidfd_open");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = pidfd};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event) == 0, "epoll_ctl");
  return pidfd;
}

static void collect(int pidfd) {
  siginfo_t info;
  check(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0, "waitid");
  if (info.si_code != CLD_EXITED || info.si_status != 0) {
    fprintf(stderr, "floor: the child did not end well\n");
    exit(1);
  }
}

/* A child between vfork and its close-on-exec still shares the description, so close alone would leave it in the epoll. */
static void forget(int epoll, int pidfd) {
  check(epoll_ctl(epoll, EPOLL_CTL_DEL, pidfd, NULL) == 0, "epoll_ctl");
  close(pidfd);
}

static void measure_spawn(int count, int in_flight) {
  char *const argv[] = {"/bin/true", NULL};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event events[64];
  int64_t start = now();
  for (int started = 0, collected = 0; collected < count;) {
    while (started < count && started - collected < in_flight) {
      spawn(epoll, argv);
      started += 1;
    }
    int ready = epoll_wait(epoll, events, 64, -1);
    check(ready > 0, "epoll_wait");
    for (int at = 0; at < ready; at += 1) {
      collect(events[at].data.fd);
      forget(epoll, events[at].data.fd);
    }
    collected += ready;
  }
  printf("%lld\n", (long long)(now() - start));
}

static void measure_exit(char *self, int count, char *path) {
  char *const argv[] = {self, "stamp", path, NULL};
  volatile int64_t *stamp = stamp_in(path);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  for (int done = 0; done < count; done += 1) {
    int pidfd = spawn(epoll, argv);
    check(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
    collect(pidfd);
    printf("%lld\n", (long long)(now() - *stamp));
    forget(epoll, pidfd);
    nanosleep(&between, NULL);
  }
}

static void leave_stamp(const char *path) {
  volatile int64_t *stamp = stamp_in(path);
  *stamp = 0; /* the page fault comes now, not between the stamp and the end */
  nanosleep(&child_life, NULL);
  *stamp = now();
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "spawn") == 0) measure_spawn(atoi(argv[2]), atoi(argv[3]));
  else if (argc == 4 && strcmp(argv[1], "exit") == 0) measure_exit(argv[0], atoi(argv[2]), argv[3]);
  else if (argc == 3 && strcmp(argv[1], "stamp") == 0) leave_stamp(argv[2]);
  else {
    fprintf(stderr, "usage: floor spawn COUNT IN_FLIGHT | exit COUNT FILE | stamp FILE\n");
    return 100;
  }
  return 0;
}
