/*
 * survey - a question of the master itself to all workers, with their answers as one JSON object.
 *
 * Numbers at the top of the workers' objects are added up; `missing` lists the workers that gave
 * no answer. Other members are dropped.
 */
#ifndef MASTER_SURVEY_H
#define MASTER_SURVEY_H

#include "master/cluster.h"

/* `body` is JSON; status 200 when all answered, 206 when some did, else 503. */
typedef void survey_done(struct master *m, uint64_t number, int status, struct span body);
/* `done` may be called from inside this call. */
void survey_begin(struct master *m, const struct cluster_verb *verb, survey_done *done,
                  uint64_t number);

#endif
