/* What the programs of the floors have in common. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdint.h>
#include <sys/types.h>

/* Ends the program where a call has failed. */
void check(int ok, const char *call);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t now(void);

/* The stamp that a file holds, shared with whoever else has it open. */
volatile int64_t *stamp_in(const char *path);

/* What the children do, and who ends them: none of these returns. */
void leave_stamp(const char *path);
void do_nothing(void);
void kill_all(const char *stamp, const char *pids);

#endif
