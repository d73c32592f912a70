#include "worker/move/digest.h"

#include "worker/lane/role_impl.h"

/* The finalizer of splitmix64 over both. Values are small and alike: a weaker one has met itself
   in a test. */
static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) + 0x9e3779b97f4a7c15ull;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ h >> 27) * 0x94d049bb133111ebull;
    return h ^ h >> 31;
}

/* As msg_put_meta writes it; but a tail is what the owner has in flight. */
static enum rcpt_state state_of(const struct qentry *e)
{
    return e->state == ENTRY_TAIL ? RCPT_QUEUED : role_written_state(e);
}

/* A time that has passed says nothing any more; where due_s is left over from before it neither
   does. */
static uint32_t due_of(const struct qentry *e, uint32_t now_s)
{
    bool waits =
        e->state == ENTRY_WAITING || e->state == ENTRY_REPLICA || e->state == ENTRY_STRAY;
    return waits && e->due_s > now_s ? e->due_s : 0;
}

uint64_t move_digest(const struct queue *q, const struct qmsg *m)
{
    uint32_t now_s = queue_now_unix_s(q);
    uint64_t h = 0x243f6a8885a308d3ull;
    for (uint32_t i = m->first; i != 0;) {
        const struct qentry *e = store_entry(&q->store, i);
        i = e->sibling;
        enum rcpt_state state = state_of(e);
        h = mix(h, (uint64_t)e->index << 32 | (uint64_t)e->attempts << 8 | state);
        h = mix(h, state == RCPT_QUEUED ? due_of(e, now_s) : 0);
    }
    return h != 0 ? h : 1;
}
