/* machine - what a figure was measured on, for results: nothing here affects a measurement. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include "base/check.h"

enum { MACHINE_TEXT_BYTES = 256 };

struct machine {
    char cpu[MACHINE_TEXT_BYTES];
    char kernel[MACHINE_TEXT_BYTES];
    char file_system[MACHINE_TEXT_BYTES]; /* type, journal, device, options */
    char date[32];
    long cores;
    double memory_gb;
};

/* What cannot be found out is "unknown". dir names the file system. */
void machine_describe(struct machine *m, const char *dir);

#endif
