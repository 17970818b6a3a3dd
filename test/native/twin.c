// Makes the system calls that correspond to a client's requests. Reads one command per line, and answers in one line.
//   child ARGV...        forks and executes, opens a blocking and a nonblocking pidfd; answers its pid
//   hold PID             opens an existing process (0: itself)
//   wait b|n OPTIONS     waitid on the blocking or the nonblocking pidfd; answers
//                        event CODE STATUS PID UID | zero | blocks | an errno
// As `twin act NAME` it is a child with a behaviour that a shell cannot have: leader-exits, leader-leaves,
// thread-executes, traced-stops, traced-executes, chain, chain-of-groups.
// `twin trace PID` traces another process, and never waits for it.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

static int fds[2] = {-1, -1};

static int hold(pid_t pid) {
  for (int i = 0; i < 2; i++) {
    if (fds[i] >= 0) close(fds[i]);
    fds[i] = syscall(SYS_pidfd_open, pid, i ? O_NONBLOCK : 0);
    if (fds[i] < 0) return -1;
  }
  return 0;
}

static int call(int fd, int options, siginfo_t *info) {
  struct rusage usage;
  memset(info, 0, sizeof *info);
  return syscall(SYS_waitid, 3 /* P_PIDFD */, fd, info, options, &usage);
}

static void answer(int nonblocking, int options) {
  siginfo_t info;
  int fd = fds[nonblocking];
  // Would the call block? A call with WNOHANG tells.
  if (!nonblocking && !(options & WNOHANG) && call(fd, options | WNOHANG | WNOWAIT, &info) == 0 && info.si_pid == 0) {
    puts("blocks");
    return;
  }
  if (call(fd, options, &info) == -1) puts(strerrorname_np(errno));
  else if (info.si_pid == 0) puts("zero");
  else printf("event %d %d %d %d\n", info.si_code, info.si_status, info.si_pid, (int)info.si_uid);
}

static void *exit_late(void *nothing) {
  usleep(20000);
  syscall(SYS_exit_group, 7);
  return nothing;
}

static void *stay(void *nothing) {
  for (;;) pause();
  return nothing;
}

static void *execute(void *nothing) {
  execl("/bin/sh", "sh", "-c", "exit 6", (char *)NULL);
  return nothing;
}

static int act(const char *name) {
  pthread_t thread;
  if (strncmp(name, "exit=", 5) == 0) _exit(atoi(name + 5));
  if (strcmp(name, "leader-exits") == 0) {
    pthread_create(&thread, NULL, exit_late, NULL);
    syscall(SYS_exit, 3);
  }
  if (strcmp(name, "leader-leaves") == 0) {
    pthread_create(&thread, NULL, stay, NULL);
    syscall(SYS_exit, 3);
  }
  if (strcmp(name, "traced-stops") == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGWINCH);
  }
  if (strcmp(name, "traced-executes") == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    execl("/bin/sleep", "sleep", "1000", (char *)NULL);
  }
  // Each process forks one and exits. `chain-of-groups`: each is a process group of its own.
  if (strncmp(name, "chain", 5) == 0)
    for (time_t begin = time(NULL); time(NULL) < begin + 8;) {
      usleep(1000); // so that no more than some thousands of them wait to be reaped
      if (strcmp(name, "chain-of-groups") == 0) setpgid(0, 0);
      if (fork() > 0) _exit(0);
    }
  if (strcmp(name, "thread-executes") == 0) {
    pthread_create(&thread, NULL, execute, NULL);
    pause();
  }
  return 1;
}

static int trace(pid_t pid) {
  if (ptrace(PTRACE_SEIZE, pid, 0, 0) == -1) return 1;
  puts("traced");
  fflush(stdout);
  for (;;) pause();
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "trace") == 0) return trace(atoi(argv[2]));
  if (argc == 3 && strcmp(argv[1], "act") == 0) return act(argv[2]);
  setvbuf(stdout, NULL, _IOLBF, 0);
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    char *words[64], *rest = line;
    int count = 0;
    while (count < 63 && (words[count] = strsep(&rest, "\t"))) count++;
    words[count] = NULL;
    if (strcmp(words[0], "child") == 0) {
      pid_t pid = fork();
      if (pid == 0) {
        setsid();
        freopen("/dev/null", "r", stdin);
        freopen("/dev/null", "w", stdout);
        freopen("/dev/null", "w", stderr);
        execvp(words[1], words + 1);
        _exit(127);
      }
      hold(pid);
      printf("%d\n", pid);
    } else if (strcmp(words[0], "hold") == 0) {
      pid_t pid = atoi(words[1]);
      puts(hold(pid ? pid : getpid()) ? strerrorname_np(errno) : "held");
    } else if (strcmp(words[0], "wait") == 0) {
      answer(words[1][0] == 'n', atoi(words[2]));
    }
  }
}
