/* workdir - a directory of our own for one measurement, and nothing left of it afterwards. */
#ifndef BENCH_WORKDIR_H
#define BENCH_WORKDIR_H

#include "base/check.h"

enum { WORKDIR_BYTES = 200 };

/* Makes PARENT/mochila-bench.XXXXXX, as an absolute path. 0, or -errno after saying why. */
NODISCARD int workdir_make(const char *parent, char out[WORKDIR_BYTES]);
/* Removes it with everything below; it must be one that workdir_make has made. */
void workdir_remove(const char *path);
/* A TCP port of 127.0.0.1 that nobody listens on; 0 when there is none. */
uint16_t workdir_free_port(void);

#endif
