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
/* The same with the text as it is. */
void verbs_answer_text(struct master *m, uint64_t id, int status, struct span text);
/* Writes an order of an operator or a signal to the audit log. */
void verbs_audit(struct master *m, const char *who, const char *what, const char *result);
/* Verb and arguments as one text, for the audit log. */
enum { VERBS_WHAT_BYTES = 320 };
void verbs_describe(const struct control_frame *f, char *out, size_t cap);
/*
 * `hold` and `release` of a lane as another node passed them on: carried out only by the lane's
 * owner; and `hold` of a message that is about to come. The answer with *status; NULL: no memory.
 */
json_t *verbs_hold_asked(struct master *m, const char *who, const struct control_frame *f,
                         int *status);

/* status.c: new objects. */
json_t *status_json(const struct master *m);
json_t *status_holds(const struct master *m);
/* running, degraded, reloading, draining, drained, stopping. */
const char *status_word(const struct master *m);

#endif
