/* room_count - see room.h: numbers of a move, for people. */
#include "master/move/room.h"

#include <stdio.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void pauses(const struct move *v, struct move_sums *out)
{
    uint64_t *list = malloc((v->count + 1) * sizeof *list);
    uint32_t n = 0;
    if (list == NULL)
        return;
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->lanes[i]->pause_us != 0)
            list[n++] = v->lanes[i]->pause_us;
    }
    if (n > 0) {
        qsort(list, n, sizeof *list, by_value);
        out->pause_p50 = list[(n - 1) / 2];
        out->pause_p99 = list[(n - 1) * 99 / 100];
        out->pause_max = list[n - 1];
    }
    free(list);
}

void move_sum(const struct move *v, struct move_sums *out)
{
    *out = (struct move_sums){.lanes = v->count};
    for (uint32_t i = 0; i < v->count; i++) {
        const struct lane_move *l = v->lanes[i];
        out->over += l->state == GIVE_TAIL || l->state == GIVE_ENDING || l->state == TAKE_TAIL ||
                     l->state == TAKE_ENDING ||
                     (l->state == MOVE_OVER && l->outcome == MOVE_DONE);
        out->waiting += l->state == GIVE_WAITING;
        out->messages_sent += l->progress.messages_sent;
        out->messages_left += l->progress.messages_left;
        out->bytes_sent += l->progress.bytes_sent;
        out->bytes_left += l->progress.bytes_left;
        out->owed += l->progress.owed;
        out->tails += l->tails;
        if (l->state == GIVE_COPYING)
            out->bytes_per_s += l->bytes_per_s;
    }
    pauses(v, out);
}

const char *move_word(const struct move *v)
{
    bool moving = false, copying = false;
    switch (v->outcome) {
    case MOVE_DONE:
        return "done";
    case MOVE_ABORTED:
        return "aborted";
    case MOVE_REFUSED:
        return "refused";
    case MOVE_FAILED:
        return "failed";
    case MOVE_OPEN:
        break;
    }
    for (uint32_t i = 0; i < v->count; i++) {
        enum move_state s = v->lanes[i]->state;
        moving |= (s >= GIVE_FREEZING && s <= GIVE_RESUMING) ||
                  (s >= TAKE_OWNING && s <= TAKE_ENDING);
        copying |= s == GIVE_COPYING || s == TAKE_REPLICA || s == TAKE_READY;
    }
    return moving ? "moving" : copying ? "copying" : "preparing";
}

void move_id_text(const struct move *v, char out[LIMIT_NAME_BYTES + 24])
{
    snprintf(out, LIMIT_NAME_BYTES + 24, "%s-%llu", v->giver,
             (unsigned long long)(v->id & ((1ull << 48) - 1)));
}
