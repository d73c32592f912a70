/* What the sink answers at each stage: the script first, then the ratios; delays come on top. */
#include "bench/sink_private.h"

static const char *const refusal_5xx[STAGE_COUNT] = {
    [STAGE_CONNECT] = "554 5.7.1 Not today\r\n",   [STAGE_EHLO] = "550 5.7.1 Not to you\r\n",
    [STAGE_MAIL] = "550 5.7.1 Sender refused\r\n", [STAGE_RCPT] = "550 5.1.1 No such user\r\n",
    [STAGE_DATA] = "554 5.3.0 No data taken\r\n",  [STAGE_DOT] = "554 5.6.0 Message refused\r\n",
};
static const char *const refusal_4xx[STAGE_COUNT] = {
    [STAGE_CONNECT] = "421 4.3.2 Not now\r\n",      [STAGE_EHLO] = "421 4.3.2 Not now\r\n",
    [STAGE_MAIL] = "451 4.3.0 Try again later\r\n", [STAGE_RCPT] = "450 4.2.1 Try again later\r\n",
    [STAGE_DATA] = "451 4.3.0 Try again later\r\n", [STAGE_DOT] = "451 4.3.0 Try again later\r\n",
};
static const char greylisted[] = "450 4.7.1 Greylisted, try again later\r\n";
static const char one_at_a_time[] = "452 4.5.3 Not this recipient with the others\r\n";

static double chance(struct sink *s)
{
    return (double)(rng_u64(&s->rng) >> 11) / 9007199254740992.0;
}

static uint32_t stage_delay_ms(struct sink *s, enum stage stage)
{
    const struct delay_range *d = &s->options->delay[stage];

    return d->low_ms + (uint32_t)rng_below(&s->rng, (uint64_t)d->high_ms - d->low_ms + 1);
}

static struct verdict by_rule(const struct script_rule *r, uint32_t delay_ms)
{
    static const enum verdict_kind kinds[] = {
        [SCRIPT_ACCEPT] = VERDICT_ACCEPT,
        [SCRIPT_REPLY] = VERDICT_REPLY,
        [SCRIPT_CLOSE] = VERDICT_CLOSE,
    };
    uint32_t ms = r->delay_ms > 0 ? r->delay_ms : delay_ms;

    return (struct verdict){kinds[r->act], ms, r->reply};
}

struct verdict sink_policy_decide(struct sink *s, enum stage stage, struct span subject)
{
    const struct sink_options *o = s->options;
    struct verdict v = {.kind = VERDICT_ACCEPT};
    const struct script_rule *rule = NULL;

    if (o->delay[stage].high_ms > 0)
        v.delay_ms = stage_delay_ms(s, stage);
    if (s->script.count > 0)
        rule = sink_script_find(&s->script, stage, subject, chance(s));
    if (rule != NULL)
        return by_rule(rule, v.delay_ms);
    if (o->fail[stage] > 0 && chance(s) < o->fail[stage])
        v.reply = refusal_5xx[stage];
    else if (o->tempfail[stage] > 0 && chance(s) < o->tempfail[stage])
        v.reply = refusal_4xx[stage];
    else if (stage == STAGE_DOT && o->close_after_dot > 0 && chance(s) < o->close_after_dot)
        v.kind = VERDICT_CLOSE;
    if (v.reply != NULL)
        v.kind = VERDICT_REPLY;
    return v;
}

struct verdict sink_policy_rcpt(struct sink *s, const struct sink_session *c, struct span rcpt)
{
    const struct sink_options *o = s->options;
    struct verdict v = sink_policy_decide(s, STAGE_RCPT, rcpt);

    if (v.kind != VERDICT_ACCEPT)
        return v;
    if (s->greylist != NULL) {
        const struct ip *ip = &s->peers.items[c->peer].ip;
        uint64_t key = greylist_key(ip, span_str(c->addresses), rcpt);
        if (!greylist_passes(s->greylist, key, s->at_ns, o->greylist_ms))
            return (struct verdict){VERDICT_REPLY, v.delay_ms, greylisted};
    }
    if (o->accept_one_of > 1 && c->tx.rcpt_asked % o->accept_one_of != 0)
        return (struct verdict){VERDICT_REPLY, v.delay_ms, one_at_a_time};
    return v;
}
