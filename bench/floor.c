// The floors that the daemon is measured against, and the child that stamps its own end.
//   floor spawn COUNT INFLIGHT     posix_spawn /bin/true + epoll + waitid: processes a second
//   floor latency COUNT            last instruction -> waitid returned, one line of nanoseconds each
//   floor stamp FILE               writes CLOCK_MONOTONIC to FILE and ends
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void collect(int fd) {
  siginfo_t info;
  struct rusage usage;
  syscall(SYS_waitid, 3 /* P_PIDFD */, fd, &info, WEXITED, &usage);
}

static int start(int epoll, char **argv) {
  pid_t pid;
  if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ)) exit(1);
  int fd = syscall(SYS_pidfd_open, pid, 0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  return fd;
}

static void finish(int epoll, int fd) {
  collect(fd);
  epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
  close(fd);
}

static void spawn_rate(int count, int inflight) {
  char *argv[] = {"/bin/true", NULL};
  int epoll = epoll_create1(EPOLL_CLOEXEC), started = 0, ended = 0;
  struct epoll_event events[64];
  uint64_t begin = now();
  while (ended < count) {
    while (started < count && started - ended < inflight) start(epoll, argv), started++;
    int ready = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < ready; i++) finish(epoll, events[i].data.fd), ended++;
  }
  printf("%.1f\n", count / ((now() - begin) / 1e9));
}

static void latency(int count, const char *self) {
  char path[] = "/tmp/floor-XXXXXX";
  close(mkstemp(path));
  truncate(path, 8);
  int fd = open(path, O_RDWR);
  volatile uint64_t *stamp = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char *argv[] = {(char *)self, "stamp", path, NULL};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  for (int i = 0; i < count; i++) {
    int child = start(epoll, argv);
    epoll_wait(epoll, &event, 1, -1);
    collect(child);
    printf("%lu\n", (unsigned long)(now() - *stamp));
    epoll_ctl(epoll, EPOLL_CTL_DEL, child, NULL);
    close(child);
  }
  unlink(path);
}

static void stamp(const char *path) {
  int fd = open(path, O_RDWR);
  volatile uint64_t *place = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  usleep(2000); // whoever started us has gone back to waiting by then
  *place = now();
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "spawn")) spawn_rate(atoi(argv[2]), atoi(argv[3]));
  else if (argc == 3 && !strcmp(argv[1], "latency")) latency(atoi(argv[2]), argv[0]);
  else if (argc == 3 && !strcmp(argv[1], "stamp")) stamp(argv[2]);
  else return 2;
}
