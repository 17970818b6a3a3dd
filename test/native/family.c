// A family of processes for tests of `settled`. Every member inherits stdout, so the last one to end closes it.
// usage: family SEED          a random family
//        family chain COUNT   each process forks the next one and exits
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned random_below(unsigned limit) { return (unsigned)rand() % limit; }

static void doze(unsigned most_us) { usleep(random_below(most_us + 1)); }

// Forks children that fork in turn. Some change their group, some are orphaned at once. Not all parents collect.
static void grow(int depth) {
  for (unsigned left = 1 + random_below(2); left > 0; left--) {
    int seed = rand();
    if (fork() != 0) continue;
    srand(seed);
    if (random_below(2)) setpgid(0, 0);
    if (random_below(3) == 0 && fork() != 0) _exit(0);
    doze(2000);
    if (depth > 0 && random_below(2)) grow(depth - 1);
    doze(4000);
    _exit(0);
  }
  doze(2000);
  if (random_below(2))
    while (wait(NULL) > 0);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "chain") == 0) {
    for (int left = atoi(argv[2]); left > 0; left--) {
      if (fork() != 0) _exit(0);
      if (left % 2) setpgid(0, 0);
    }
    return 0;
  }
  if (argc != 2) return 2;
  srand(atoi(argv[1]));
  grow(2);
  return 0;
}
