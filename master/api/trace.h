/*
 * trace - finds all events of one message by scanning the event files from their ends backwards.
 *
 * Bounded by bytes and time, and done in steps, so that a scan of gigabytes neither stops the other
 * requests of this single thread nor goes on for ever. What was not scanned is said ("cut").
 */
#ifndef API_TRACE_H
#define API_TRACE_H

#include "base/id.h"
#include "master/api/answer.h"

enum {
    TRACE_BLOCK_BYTES = 1 << 20, /* of one read, and the longest line understood */
    TRACE_STEP_BYTES = 8 << 20,  /* of one step: some milliseconds */
    TRACE_BYTES_MAX = 256 << 20,
    TRACE_MS_MAX = 5000,
    TRACE_EVENTS_MAX = 10000,
};

struct trace;

/* `limit`: events kept, the newest. 0, or -errno when the directory cannot be read. */
NODISCARD int trace_create(const char *log_dir, struct msg_id id, uint32_t limit, uint64_t now_ms,
                           struct trace **out);
void trace_destroy(struct trace **t);
/* Scans on; true when it is finished. */
bool trace_step(struct trace *t, uint64_t now_ms);
/* {"id","events":[..by time..],"cut","scanned_bytes","files"}; 404 when all was scanned in vain. */
void trace_answer(struct trace *t, struct answer *out);

#endif
