/*
 * id - message ids: origin node (16 bit), boot counter (48), sequence (64).
 *
 * Assigned before the commit, never reused, independent of place. The text form is 26 letters of
 * Crockford's base32 (0-9 a-z without i l o u), most significant first, so it sorts by origin, boot
 * and sequence. Delivery id = message id + recipient index.
 */
#ifndef BASE_ID_H
#define BASE_ID_H

#include "base/span.h"

enum { ID_BYTES = 16, ID_TEXT = 26 };

struct msg_id {
    uint64_t hi; /* origin << 48 | boot */
    uint64_t lo; /* sequence */
};

static inline bool id_eq(struct msg_id a, struct msg_id b)
{
    return a.hi == b.hi && a.lo == b.lo;
}
static inline bool id_is_none(struct msg_id a)
{
    return a.hi == 0 && a.lo == 0;
}
/* Origin 1..65535, boot below 2^48. */
struct msg_id id_make(uint16_t origin, uint64_t boot, uint64_t sequence);
uint32_t id_hash(struct msg_id id);
/* Writes ID_TEXT letters and a NUL. */
void id_format(struct msg_id id, char out[ID_TEXT + 1]);
/* Exactly ID_TEXT letters, either case; -EINVAL otherwise. */
NODISCARD int id_parse(struct span s, struct msg_id *out);
void put_id(struct writer *w, struct msg_id id);
struct msg_id cursor_id(struct cursor *c);

#endif
