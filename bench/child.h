/*
 * child - a generator, sink or other program as a child process, and its JSON result.
 *
 * Owner:  the runner. Children die with it (PR_SET_PDEATHSIG).
 */
#ifndef BENCH_CHILD_H
#define BENCH_CHILD_H

#include "bench/sink.h"
#include "bench/source.h"

#include <jansson.h>
#include <sys/types.h>

struct child {
    pid_t pid;     /* 0 = none */
    char json[64]; /* file of its result, in the runner's directory */
};

/* Forks a sink; o->json is set to a file in `dir`. 0 or -errno. */
NODISCARD int child_sink(struct child *c, struct sink_options *o, const char *dir);
NODISCARD int child_source(struct child *c, struct source_options *o, const char *dir);
/* Waits at most ms; 1 = ended (status in *status), 0 = not yet. */
int child_wait(struct child *c, uint64_t ms, int *status);
/* Signals, waits up to ms, then kills. */
void child_stop(struct child *c, int signal, uint64_t ms);
/* The result of an ended child, or NULL. */
json_t *child_result(const struct child *c);

#endif
