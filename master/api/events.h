/*
 * events - the newest events of the node, and those that came since the last call.
 *
 * The caller keeps no state here: "cursor" of an answer names where each file was read to, and the
 * next call goes on there. A caller that is too far behind is moved forward and told how much it
 * missed ("skipped_bytes").
 */
#ifndef API_EVENTS_H
#define API_EVENTS_H

#include "master/api/answer.h"
#include "master/api/args.h"
#include "master/api/event_files.h"

enum {
    EVENTS_READ_BYTES = 256 << 10, /* of one file and call */
    EVENTS_BEHIND_BYTES = 1 << 20, /* a cursor farther behind is moved */
    EVENTS_FILES_MAX = 128,        /* read; the newest */
};

/* {"rows":[..by time..],"cursor","skipped_bytes"}; filters event, lane, tenant, id. */
void events_answer(const char *log_dir, const struct args *args, struct answer *out);
/* Where a cursor says this inode was read to; -1 when it does not know it. Exposed for its test. */
int64_t events_cursor_find(const char *cursor, uint64_t inode);

#endif
