/* report - see report.h. */
#include "master/move/report.h"

static json_int_t number(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (json_int_t)v;
}

static json_t *lane_report(const struct lane_move *l)
{
    static const char *const outcomes[] = {[MOVE_DONE] = "done",
                                           [MOVE_ABORTED] = "aborted",
                                           [MOVE_REFUSED] = "refused",
                                           [MOVE_FAILED] = "failed"};
    char text[IP_TEXT];
    bool over = l->state == MOVE_OVER;
    ip_format(&l->address, text);
    return json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:s}", "lane", text, "state",
                     over && l->outcome != MOVE_OPEN ? outcomes[l->outcome]
                                                     : move_state_word(l->state),
                     "step", (int)lane_move_step(l), "pause_us", number(l->pause_us),
                     "messages_left", number(l->progress.messages_left), "bytes_left",
                     number(l->progress.bytes_left), "tails", (json_int_t)l->tails, "reason",
                     l->reason[0] != '\0' || over ? l->reason : l->netd_why);
}

static json_t *lanes_report(const struct move *v)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list != NULL && i < v->count; i++)
        (void)json_array_append_new(list, lane_report(v->lanes[i]));
    return list;
}

/* What the giver said of it: the taker knows names and states only. */
static void put_news(const struct move *v, json_t *o)
{
    json_t *news = v->side == MOVE_TAKER && v->news_bytes > 0
                       ? json_loadb(v->news, v->news_bytes, 0, NULL)
                       : NULL;
    /* The last words may be lost, so what ended here has ended. */
    if (json_is_object(news) && v->ended != 0) {
        (void)json_object_del(news, "state");
        (void)json_object_del(news, "ended");
        (void)json_object_del(news, "reason");
        (void)json_object_del(news, "lanes_done");
    }
    if (json_is_object(news))
        (void)json_object_update_existing(o, news);
    json_decref(news);
}

static void put_numbers(const struct move *v, const struct move_sums *s, json_t *o)
{
    uint64_t eta = s->bytes_per_s > 1 ? (uint64_t)((double)s->bytes_left / s->bytes_per_s) : 0;
    json_t *numbers = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "lanes_total",
        (json_int_t)s->lanes, "lanes_done", (json_int_t)s->over, "messages_total",
        number(s->messages_sent + s->messages_left), "messages_sent", number(s->messages_sent),
        "bytes_total", number(s->bytes_sent + s->bytes_left), "bytes_sent", number(s->bytes_sent),
        "rate_bytes_per_s", (json_int_t)s->bytes_per_s, "eta_s", number(eta), "tails",
        (json_int_t)s->tails, "owed", number(s->owed), "in_doubt", (json_int_t)s->in_doubt);
    if (numbers != NULL)
        (void)json_object_update(o, numbers);
    json_decref(numbers);
    (void)json_object_set_new(o, "pause_us",
                              json_pack("{s:I, s:I, s:I}", "p50", number(s->pause_p50), "p99",
                                        number(s->pause_p99), "max", number(s->pause_max)));
    (void)v;
}

json_t *move_report(const struct move *v, bool with_lanes)
{
    char id[LIMIT_NAME_BYTES + 24];
    struct move_sums sums;
    move_id_text(v, id);
    move_sum(v, &sums);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s}", "id", id, "pool", v->pool,
                          "from", v->giver, "to", v->taker, "state", move_word(v), "started",
                          (json_int_t)v->started, "ended", (json_int_t)v->ended, "reason",
                          v->reason);
    if (o == NULL)
        return NULL;
    put_numbers(v, &sums, o);
    put_news(v, o);
    if (with_lanes)
        (void)json_object_set_new(o, "lanes", lanes_report(v));
    return o;
}
