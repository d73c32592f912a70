/*
 * verbs - the operator's questions and orders to the master itself (proto/verb.h says which those
 * are).
 *
 * Every order is written to the audit log of state.db with its outcome; those that change state.db
 * are answered when the change is durable.
 */
#ifndef MASTER_VERBS_H
#define MASTER_VERBS_H

#include "master/master.h"

#include <jansson.h>

/* A QUERY of the api. */
void verbs_query(struct master *m, const struct control_frame *f);
/* Sends a whole answer in pieces; takes over `body`. */
void verbs_answer(struct master *m, uint64_t id, int status, json_t *body);
/* The reload that an operator waits for is over; m->reload_text says how. */
void verbs_reload_done(struct master *m, int status);
/* Writes an order of an operator or a signal to the audit log. */
void verbs_audit(struct master *m, const char *who, const char *what, const char *result);

/* status.c: new objects. */
json_t *status_json(const struct master *m);
json_t *status_holds(const struct master *m);
/* running, degraded, reloading, draining, drained, stopping. */
const char *status_word(const struct master *m);

#endif
