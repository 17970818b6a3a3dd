/*
 * What the kernel can do at best, in C: the floors that waitd is compared with.
 *
 *   floor spawn COUNT IN_FLIGHT        spawns and collects /bin/true; prints the elapsed nanoseconds
 *   floor exit COUNT FILE OTHERS       from the stamp in FILE to waitid's return; prints nanoseconds, one per line
 *   floor mass COUNT FILE PIDS         from the stamp in FILE, set when the first of COUNT is killed, until all are
 *                                      collected; prints nanoseconds
 *
 * OTHERS is a number of idle children. What the children do:
 *
 *   floor stamp FILE                   writes CLOCK_MONOTONIC into FILE just before it exits
 *   floor pause                        nothing
 *   floor kill FILE PIDS               stamps FILE, and kills every pid in the file PIDS, one per line
 */
#define _GNU_SOURCE
#include "floor.h"
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

extern char **environ;

/* Idle time between two exits. */
static const struct timespec between = {.tv_nsec = 2 * 1000 * 1000};
/* Time for the children started last to go to sleep; HELD_SETTLE_MS in held.ts is the same. */
static const struct timespec settling = {.tv_sec = 1};

static pid_t start(char *const argv[]) {
  pid_t pid;
  errno = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
  check(errno == 0, "posix_spawn");
  return pid;
}

/* The pidfd, registered with epoll. */
static int watch(int epoll, pid_t pid) {
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  check(pidfd != -1, "pidfd_open");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = pidfd};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event) == 0, "epoll_ctl");
  return pidfd;
}

static void collect(int pidfd, int code, int status) {
  siginfo_t info;
  check(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0, "waitid");
  if (info.si_code != code || info.si_status != status) {
    fprintf(stderr, "floor: a child did not end as it should\n");
    exit(1);
  }
}

/* A child between vfork and close-on-exec shares the description, so that close alone would leave it in the epoll. */
static void forget(int epoll, int pidfd) {
  check(epoll_ctl(epoll, EPOLL_CTL_DEL, pidfd, NULL) == 0, "epoll_ctl");
  close(pidfd);
}

/* Waits until some children have ended; returns how many it has collected. */
static int collect_ready(int epoll, int code, int status) {
  struct epoll_event events[64];
  int ready = epoll_wait(epoll, events, 64, -1);
  check(ready > 0, "epoll_wait");
  for (int at = 0; at < ready; at += 1) {
    collect(events[at].data.fd, code, status);
    forget(epoll, events[at].data.fd);
  }
  return ready;
}

static void measure_spawn(int count, int in_flight) {
  char *const argv[] = {"/bin/true", NULL};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int64_t begin = now();
  for (int started = 0, collected = 0; collected < count;) {
    while (started < count && started - collected < in_flight) {
      watch(epoll, start(argv));
      started += 1;
    }
    collected += collect_ready(epoll, CLD_EXITED, 0);
  }
  printf("%lld\n", (long long)(now() - begin));
}

/* Starts idle children, with their pidfds in the epoll; returns when they are asleep. */
static pid_t *hold(int epoll, char *self, int count) {
  char *const argv[] = {self, "pause", NULL};
  pid_t *pids = calloc((size_t)count + 1, sizeof *pids);
  check(pids != NULL, "calloc");
  for (int at = 0; at < count; at += 1) watch(epoll, pids[at] = start(argv));
  if (count > 0) nanosleep(&settling, NULL);
  return pids;
}

static void measure_exit(char *self, int count, char *path, int others) {
  char *const argv[] = {self, "stamp", path, NULL};
  volatile int64_t *stamp = stamp_in(path);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  pid_t *held = hold(epoll, self, others);
  struct epoll_event event;
  for (int done = 0; done < count; done += 1) {
    int pidfd = watch(epoll, start(argv));
    check(epoll_wait(epoll, &event, 1, -1) == 1, "epoll_wait");
    collect(pidfd, CLD_EXITED, 0);
    printf("%lld\n", (long long)(now() - *stamp));
    forget(epoll, pidfd);
    nanosleep(&between, NULL);
  }
  for (int at = 0; at < others; at += 1) kill(held[at], SIGKILL);
  for (int ended = 0; ended < others;) ended += collect_ready(epoll, CLD_KILLED, SIGKILL);
}

static void measure_mass(char *self, int count, char *path, char *pids_path) {
  char *const argv[] = {self, "kill", path, pids_path, NULL};
  volatile int64_t *stamp = stamp_in(path);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  pid_t *held = hold(epoll, self, count);
  FILE *pids = fopen(pids_path, "w");
  check(pids != NULL, "fopen");
  for (int at = 0; at < count; at += 1) fprintf(pids, "%d\n", held[at]);
  check(fclose(pids) == 0, "fclose");
  pid_t killer = start(argv);
  for (int ended = 0; ended < count;) ended += collect_ready(epoll, CLD_KILLED, SIGKILL);
  int64_t end = now();
  check(waitpid(killer, NULL, 0) == killer, "waitpid");
  printf("%lld\n", (long long)(end - *stamp));
}

int main(int argc, char **argv) {
  const char *mode = argc < 2 ? "" : argv[1];
  if (argc == 4 && strcmp(mode, "spawn") == 0) measure_spawn(atoi(argv[2]), atoi(argv[3]));
  else if (argc == 5 && strcmp(mode, "exit") == 0) measure_exit(argv[0], atoi(argv[2]), argv[3], atoi(argv[4]));
  else if (argc == 5 && strcmp(mode, "mass") == 0) measure_mass(argv[0], atoi(argv[2]), argv[3], argv[4]);
  else if (argc == 3 && strcmp(mode, "stamp") == 0) leave_stamp(argv[2]);
  else if (argc == 2 && strcmp(mode, "pause") == 0) do_nothing();
  else if (argc == 4 && strcmp(mode, "kill") == 0) kill_all(argv[2], argv[3]);
  else {
    fprintf(stderr, "usage: see the head of floor.c\n");
    return 100;
  }
  return 0;
}
