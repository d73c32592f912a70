/*
 * Attempts that were open when their lane was given away, and ended here: the new owner drops their
 * entries. Best effort: what is lost it asks for.
 *
 * Invariant: nothing is told before it is durable here; a fate that a crash took back would be an
 * entry that nobody has.
 */
#include "worker/move/hand_impl.h"

#include <errno.h>
#include <stdlib.h>

enum tail_stage { TAIL_DECIDED, TAIL_SYNCING, TAIL_TO_SEND, TAIL_OVER };
struct hand_tail {
    struct hand_tail *next;
    struct hand *hand;
    uint32_t lane; /* index */
    struct msg_id id;
    uint16_t index;
    enum tail_stage stage;
    struct spool_wait wait;
};

static void on_tail_durable(struct spool_wait *w, int res)
{
    struct hand_tail *t = (struct hand_tail *)((char *)w - offsetof(struct hand_tail, wait));
    const struct lane *l = &t->hand->queue->lanes[t->lane];
    bool known = res == 0 && l->shard->unwritten == NULL;
    t->stage = known ? TAIL_TO_SEND : TAIL_OVER; /* over: the owner will ask */
    hand_wake(t->hand);
}

void hand_on_tail_done(struct hand *h, struct lane *l, struct msg_id id, uint16_t index)
{
    struct hand_tail *t = h->tail_count < HAND_TAILS ? calloc(1, sizeof *t) : NULL;
    if (t == NULL)
        return; /* the owner will ask */
    t->hand = h;
    t->lane = l->index;
    t->id = id;
    t->index = index;
    t->wait.on_durable = on_tail_durable;
    t->next = h->tails;
    h->tails = t;
    h->tail_count++;
    hand_wake(h);
}

/* False: it stays and waits. */
static bool tail_send(struct hand *h, const struct hand_tail *t)
{
    const struct lane *l = &h->queue->lanes[t->lane];
    if (l->role == LANE_OWNER)
        return true; /* the move was given up: nobody else counts it */
    if (l->role == LANE_FROZEN || l->node[0] == '\0' || l->node_slot == CONTROL_NO_SLOT)
        return false;
    struct lane_item item = {.id = t->id, .index = t->index};
    struct lane_frame f = {
        .kind = LANE_FRAME_TAIL_DONE, .lane = l->address, .items = &item, .item_count = 1};
    const struct lane_from to = {l->node, l->node_slot};
    return hand_send(h, &to, &f) == 0;
}

static void tail_turn(struct hand *h, struct hand_tail *t)
{
    if (t->stage == TAIL_DECIDED) { /* its DONE has been appended since */
        t->stage = TAIL_SYNCING;
        spool_sync(h->queue->lanes[t->lane].shard->spool, &t->wait);
    } else if (t->stage == TAIL_TO_SEND && tail_send(h, t)) {
        t->stage = TAIL_OVER;
    }
}

void hand_tails_turn(struct hand *h)
{
    for (struct hand_tail **at = &h->tails; *at != NULL;) {
        struct hand_tail *t = *at;
        tail_turn(h, t);
        if (t->stage != TAIL_OVER) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        h->tail_count--;
        free(t);
    }
}

void hand_tails_free(struct hand *h)
{
    while (h->tails != NULL) {
        struct hand_tail *t = h->tails;
        h->tails = t->next;
        free(t);
    }
    h->tail_count = 0;
}
