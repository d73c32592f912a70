/*
 * Invariants: an outbound belongs to one flow for its life; flow->opening counts those in RESOLVING
 * and CONNECTING, flow->open the others up to CLOSING, flow->closing those in CLOSING whose
 * connection still exists; the idle list holds exactly those in OUT_IDLE that are not just being
 * given a message; deliver->busy counts those with a job.
 */
#include "worker/lane/deliver_impl.h"

#include "base/log.h"
#include "worker/lane/route.h"

#include <errno.h>
#include <stdlib.h>

enum { SHORTAGE_MS = 50, STARTS_PER_RUN = 64 };

int deliver_create(struct deliver **out, struct queue *q)
{
    struct deliver *d = calloc(1, sizeof *d);
    if (d == NULL)
        return -ENOMEM;
    d->queue = q;
    int r = pool_init(&d->outbounds, "outgoing connections", sizeof(struct outbound),
                      q->env.config->client.connections_max);
    if (r != 0) {
        free(d);
        return r;
    }
    *out = d;
    return 0;
}

void deliver_destroy(struct deliver **d)
{
    if (*d == NULL)
        return;
    for (struct outbound *o = (*d)->all; o != NULL; o = o->next) {
        job_wipe(o);
        free(o->entry_room);
        free(o->rcpt_room);
        free(o->more);
    }
    pool_fini(&(*d)->outbounds);
    free(*d);
    *d = NULL;
}

uint32_t deliver_open(const struct deliver *d)
{
    return d->outbounds.used;
}

uint32_t deliver_busy(const struct deliver *d)
{
    return d->busy;
}

static void idle_leave(struct outbound *o)
{
    if (o->idle_link == NULL)
        return;
    o->deliver->idle--;
    *o->idle_link = o->next_idle;
    if (o->next_idle != NULL)
        o->next_idle->idle_link = o->idle_link;
    o->next_idle = NULL;
    o->idle_link = NULL;
}

static void left_flow(struct outbound *o)
{
    struct lane *l = outbound_lane(o);
    if (o->epoch != l->epoch && l->outbounds_old > 0)
        l->outbounds_old--;
    role_outbound_gone(o->deliver->queue, l);
    o->flow = NULL;
}

/* No more messages by this connection. Its flow counts it until it is closed: the peer does too. */
static void leave_flow(struct outbound *o)
{
    struct flow *f = o->flow;
    MUST(o->state != OUT_CLOSING);
    job_return_more(o);
    idle_leave(o);
    timer_stop(o->deliver->queue->env.wheel, &o->timer);
    if (o->state == OUT_RESOLVING || o->state == OUT_CONNECTING)
        f->opening--;
    else
        f->open--;
    o->state = OUT_CLOSING;
    if (o->client != NULL)
        f->closing++;
    else
        left_flow(o);
    flow_mark(o->deliver->queue, f);
}

static void quit(struct outbound *o)
{
    leave_flow(o);
    smtp_client_quit(o->client);
}

static void on_idle_timer(struct timer *t)
{
    quit((struct outbound *)((char *)t - offsetof(struct outbound, timer)));
}

/* The fate of the transaction before is durable: the next dot may go. */
static void on_fate_durable(struct spool_wait *w, int res)
{
    struct outbound *o = (struct outbound *)((char *)w - offsetof(struct outbound, fate_wait));
    (void)res;
    o->fate_pending = false;
    if (o->state == OUT_GATED) {
        o->state = OUT_SENDING;
        if (job_on_dot(o))
            smtp_client_go(o->client);
    } else {
        outbound_release(o);
    }
}

void outbound_release(struct outbound *o)
{
    if (o->state != OUT_CLOSING || o->client != NULL || o->fate_pending || o->read_pending)
        return;
    job_wipe(o);
    free(o->entry_room);
    free(o->rcpt_room);
    free(o->more);
    *o->link = o->next;
    if (o->next != NULL)
        o->next->link = o->link;
    pool_put(&o->deliver->outbounds, o);
}

static struct outbound *outbound_open(struct deliver *d, struct flow *f)
{
    struct outbound *o = pool_get(&d->outbounds);
    if (o == NULL)
        return NULL;
    o->deliver = d;
    o->flow = f;
    o->next = d->all;
    o->link = &d->all;
    if (o->next != NULL)
        o->next->link = &o->next;
    d->all = o;
    o->timer.on_due = on_idle_timer;
    o->fate_wait.on_durable = on_fate_durable;
    o->opened_ms = queue_now_ms(d->queue);
    f->opening++;
    o->epoch = outbound_lane(o)->epoch;
    outbound_lane(o)->outbounds++;
    flow_took_connect(d->queue, f);
    path_begin(o);
    return o;
}

/* One message is told; the others wait for the flow without losing an attempt. */
static void tell_one(struct outbound *o, bool permanent)
{
    struct queue *q = o->deliver->queue;
    struct flow *f = o->flow;
    struct qentry *e = flow_is_held(q, f) ? NULL : flow_next(q, f);
    if (e == NULL || (f->open > 0 && !permanent))
        return; /* with other connections at work the site is not unreachable, it only takes no more
                   of them */
    flow_take(q, f, e);
    e->flow = 0;
    entry_set_state(q, e, ENTRY_NEW);
    if (o->path.other_family && route_by_family(q, e, !ip_is_v4(&q->lanes[f->lane].address)))
        return;
    uint16_t detail = !permanent ? 1 : o->path.reason == REASON_LOOP ? 6 : 4;
    struct fate_facts facts = {.reason = o->path.reason,
                               .stage = o->path.stage,
                               .status = {permanent ? 5 : 4, 4, detail},
                               .reply = span_str(o->path.text),
                               .ours = o->path.reason == REASON_SOURCE_ADDRESS,
                               .remote = o->remote};
    if (o->path.current != NULL)
        facts.mx = span_str(o->path.current->name);
    fates_local(q, e, permanent ? VERDICT_PERM : VERDICT_TEMP, &facts);
}

void outbound_unreachable(struct outbound *o, bool permanent)
{
    struct queue *q = o->deliver->queue;
    q->env.stats->connect_failures++;
    bool is_new = true;
    if (!permanent && !o->path.other_family)
        is_new = flow_failed(q, o->flow, o->path.reason, span_str(o->path.text));
    if (is_new)
        tell_one(o, permanent);
    leave_flow(o);
    outbound_release(o);
}

void outbound_give_up(struct outbound *o)
{
    leave_flow(o);
    outbound_release(o);
}

void outbound_fill_facts(const struct outbound *o, struct fate_facts *f)
{
    memset(f, 0, sizeof *f);
    f->remote = o->remote;
    f->local = o->deliver->queue->lanes[o->flow->lane].address;
    if (o->path.current != NULL)
        f->mx = span_str(o->path.current->name);
    f->sender = o->job.enq.sender;
}

static bool worn_out(const struct outbound *o)
{
    const struct queue *q = o->deliver->queue;
    uint32_t most = site_at(q, o->flow->site)->limits->messages_per_connection;
    uint32_t theirs = smtp_client_offer(o->client)->mail_max;
    if (theirs > 0 && (most == 0 || theirs < most))
        most = theirs;
    return most > 0 && o->transactions >= most;
}

/* A connection of an elder epoch of the lane ends as soon as it may: until then the lane does not
   move, as its port is of the next owner's slice. */
static bool goes_on(const struct outbound *o)
{
    const struct lane *l = outbound_lane(o);
    return !o->deliver->queue->draining && lane_runs(l) && o->epoch == l->epoch;
}

/* Into the idle list, until a message comes or its time is over. */
static void wait_idle(struct outbound *o)
{
    o->state = OUT_IDLE;
    if (o->idle_link != NULL)
        return;
    o->next_idle = o->flow->idle;
    o->idle_link = &o->flow->idle;
    if (o->next_idle != NULL)
        o->next_idle->idle_link = &o->next_idle;
    o->flow->idle = o;
    o->deliver->idle++;
    uint32_t idle_s = site_at(o->deliver->queue, o->flow->site)->limits->idle_s;
    timer_set(o->deliver->queue->env.wheel, &o->timer, 1000ull * idle_s);
}

/* Gives the connection its next message if the flow may send one; false when there is nothing to
 * do. */
static bool employ(struct outbound *o)
{
    struct queue *q = o->deliver->queue;
    struct flow *f = o->flow;
    if (q->draining || q->paused || flow_is_held(q, f) || !flow_has_work(q, f))
        return false;
    if (flow_may_send(q, f) == FLOW_WAIT)
        return false;
    idle_leave(o);
    timer_stop(q->env.wheel, &o->timer);
    if (job_take(o))
        return true;
    wait_idle(o);
    return false;
}

void outbound_idle(struct outbound *o)
{
    struct queue *q = o->deliver->queue;
    o->state = OUT_IDLE;
    if (worn_out(o) || !goes_on(o)) {
        quit(o);
        return;
    }
    if (job_take_more(o) || employ(o))
        return;
    wait_idle(o);
    flow_mark(q, o->flow);
}

void outbound_rest(struct outbound *o)
{
    if (!goes_on(o)) {
        o->state = OUT_IDLE;
        quit(o);
        return;
    }
    wait_idle(o);
    flow_mark(o->deliver->queue, o->flow);
}

/* Every connection is taken: one that has no work makes room for a flow that has. */
static void shed_idle(struct deliver *d)
{
    const struct table *t = &d->queue->flow_by_pair;
    if (d->idle == 0 || t->slots == NULL)
        return;
    for (uint32_t i = 0; i <= t->mask; i++) {
        const struct flow *f = t->slots[i].value == 0 ? NULL : flow_at(d->queue, t->slots[i].value);
        if (f != NULL && f->idle != NULL) {
            quit(f->idle);
            return;
        }
    }
}

void deliver_run(struct deliver *d, struct flow *f)
{
    struct queue *q = d->queue;
    if (q->draining || q->paused || flow_is_held(q, f))
        return;
    if (f->ready[0] + f->ready[1] > 0 && !flow_has_work(q, f))
        f->why = REASON_HELD_TENANT;
    for (unsigned starts = 0; flow_has_work(q, f); starts++) {
        if (starts == STARTS_PER_RUN) {
            flow_mark(q, f);
            return;
        }
        if (flow_may_send(q, f) == FLOW_WAIT)
            return;
        if (f->idle != NULL) {
            if (!employ(f->idle))
                return;
            continue;
        }
        if (f->opening >= f->jobs)
            return; /* enough are on their way */
        if (flow_may_connect(q, f) == FLOW_WAIT)
            return;
        if (outbound_open(d, f) == NULL) {
            shed_idle(d);
            f->why = REASON_CONNECTIONS;
            timer_set(q->env.wheel, &f->timer, SHORTAGE_MS);
            return;
        }
    }
}

void deliver_drain(struct deliver *d)
{
    const struct table *t = &d->queue->flow_by_pair;
    for (uint32_t i = 0; t->slots != NULL && i <= t->mask; i++)
        while (t->slots[i].value != 0 && flow_at(d->queue, t->slots[i].value)->idle != NULL)
            quit(flow_at(d->queue, t->slots[i].value)->idle);
}

static void mark_tails(struct outbound *o)
{
    struct queue *q = o->deliver->queue;
    job_return_more(o);
    for (unsigned i = 0; i < o->job.count; i++)
        if (o->job.entries[i] != 0)
            role_set_tail(outbound_lane(o), store_entry(&q->store, o->job.entries[i]), true);
}

static void freeze_one(struct outbound *o)
{
    switch (o->state) {
    case OUT_CLOSING:
        return;
    case OUT_RESOLVING:
        dns_forget(&o->query);
        outbound_give_up(o);
        return;
    case OUT_READING: /* nothing has been sent of it */
        job_broken(o, &(struct client_failure){.in_job = false});
        quit(o);
        return;
    case OUT_CONNECTING:
    case OUT_IDLE:
        quit(o);
        return;
    case OUT_SENDING:
    case OUT_GATED:
        mark_tails(o);
        return;
    }
}

void deliver_freeze(struct deliver *d, struct lane *l)
{
    struct outbound *next;
    for (struct outbound *o = d->all; o != NULL; o = next) {
        next = o->next; /* one that has no connection yet is freed */
        if (o->flow != NULL && outbound_lane(o) == l)
            freeze_one(o);
    }
}

/* --- what the client says --- */

static void on_client_idle(void *owner)
{
    struct outbound *o = owner;
    if (o->state == OUT_CONNECTING) {
        o->flow->opening--;
        o->flow->open++;
        o->deliver->queue->env.stats->connections_out++;
        o->state = OUT_IDLE;
    }
    if (o->state != OUT_CLOSING)
        outbound_idle(o);
}

static enum reason failure_reason(const struct client_failure *f)
{
    if (f->reply != NULL) {
        struct classification c;
        classify_reply(f->stage, f->reply, false, &c);
        return c.reason == REASON_NONE || c.reason == REASON_DELIVERED ? REASON_PROTOCOL : c.reason;
    }
    switch (f->err) {
    case 0:
    case -ECONNRESET:
    case -EPIPE:
        return REASON_CLOSED_BY_PEER;
    case -ETIMEDOUT:
        return f->stage == STAGE_CONNECT ? REASON_CONNECT_TIMEOUT : REASON_TIMEOUT;
    case -EADDRNOTAVAIL:
    case -ENODEV:
        return REASON_SOURCE_ADDRESS;
    case -EPROTO:
        return REASON_PROTOCOL;
    case -ECANCELED:
    case -ENOBUFS:
    case -ENOMEM:
        return REASON_READ_FAILED;
    default:
        return f->stage == STAGE_CONNECT ? REASON_CONNECT_FAILED : REASON_CLOSED_BY_PEER;
    }
}

static void on_client_failed(void *owner, const struct client_failure *f)
{
    struct outbound *o = owner;
    char text[128];
    struct span say;
    if (f->reply != NULL)
        say = span_of(f->reply->text, f->reply->text_bytes);
    else
        say = span_of(text, (size_t)snprintf(text, sizeof text, "%s during %s",
                                             f->err == 0 ? "the peer closed the connection"
                                                         : strerror(-f->err),
                                             stage_word(f->stage)));
    if (o->state == OUT_CONNECTING) {
        path_failed(o, f->stage, failure_reason(f), say);
        return; /* the next address is tried when this connection is gone */
    }
    if (o->state == OUT_CLOSING)
        return;
    o->path.reason = failure_reason(f);
    bool hosts = f->reply == NULL || f->reply->code == 421; /* no verdict about the message */
    bool at_work = f->in_job || !id_is_none(o->job.id);
    if (o->transactions == 0 && at_work && hosts &&
        f->err != -ECANCELED) /* else a storm of connections */
        flow_failed(o->deliver->queue, o->flow, o->path.reason, say);
    job_broken(o, f);
    leave_flow(o);
}

static void on_client_closed(void *owner)
{
    struct outbound *o = owner;
    o->client = NULL;
    if (o->state == OUT_CONNECTING) {
        path_next(o);
        return;
    }
    MUST(o->state == OUT_CLOSING);
    o->flow->closing--;
    flow_mark(o->deliver->queue, o->flow);
    left_flow(o);
    outbound_release(o);
}

static void on_client_rcpt(void *owner, unsigned i, const struct smtp_reply *r)
{
    struct outbound *o = owner;
    struct queue *q = o->deliver->queue;
    struct msg_id was = work_on(q, o->job.id);
    job_on_rcpt(o, i, r);
    work_on(q, was);
}

static bool on_client_dot(void *owner)
{
    struct outbound *o = owner;
    struct queue *q = o->deliver->queue;
    struct msg_id was = work_on(q, o->job.id);
    bool go = job_on_dot(o);
    work_on(q, was);
    return go;
}

static void on_client_more(void *owner)
{
    struct outbound *o = owner;
    struct queue *q = o->deliver->queue;
    struct msg_id was = work_on(q, o->job.id);
    job_on_more(o);
    work_on(q, was);
}

static void on_client_done(void *owner, enum smtp_stage stage, const struct smtp_reply *r)
{
    struct outbound *o = owner;
    struct queue *q = o->deliver->queue;
    struct msg_id was = work_on(q, o->job.id);
    job_on_done(o, stage, r);
    work_on(q, was);
}

const struct client_events outbound_client_events = {
    .on_idle = on_client_idle,
    .on_rcpt = on_client_rcpt,
    .on_dot = on_client_dot,
    .on_more = on_client_more,
    .on_done = on_client_done,
    .on_failed = on_client_failed,
    .on_closed = on_client_closed,
};
