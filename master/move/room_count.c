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

static const char *const outcome_words[] = {[MOVE_OPEN] = "moving",
                                            [MOVE_DONE] = "done",
                                            [MOVE_ABORTED] = "aborted",
                                            [MOVE_REFUSED] = "refused",
                                            [MOVE_FAILED] = "failed"};

enum move_outcome move_across(const struct move *v)
{
    enum move_outcome worst = MOVE_DONE;
    if (v->outcome != MOVE_OPEN)
        return v->outcome;
    for (uint32_t i = 0; i < v->count; i++) {
        const struct lane_move *l = v->lanes[i];
        bool tail = l->state == GIVE_TAIL || l->state == GIVE_ENDING || l->state == TAKE_TAIL ||
                    l->state == TAKE_ENDING;
        if (!tail && l->state != MOVE_OVER)
            return MOVE_OPEN;
        if (!tail && l->outcome > worst)
            worst = l->outcome;
    }
    return v->aborting && worst != MOVE_DONE ? MOVE_ABORTED : worst;
}

const char *move_word(const struct move *v)
{
    bool moving = false, copying = false;
    enum move_outcome across = move_across(v);
    if (across != MOVE_OPEN)
        return outcome_words[across];
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
