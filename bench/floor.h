/* What the floor programs share. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdint.h>
#include <sys/types.h>

/* Ends the program after a failed call. */
void check(int ok, const char *call);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t now(void);

/* The time stamp in a file, mapped so that other processes see it. */
volatile int64_t *stamp_in(const char *path);

/* What the children do, and the program that kills them: none of these functions returns. */
void leave_stamp(const char *path);
void do_nothing(void);
void kill_all(const char *stamp, const char *pids);

#endif
