/* The truth: random work, and the check of what a recovery found. See spool_model.h. */
#include "tests/crash/spool_model.h"

#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void model_fail(struct model *m, const char *fmt, ...)
{
    va_list ap;
    if (m->failure[0] != '\0')
        return;
    va_start(ap, fmt);
    (void)vsnprintf(m->failure, sizeof m->failure, fmt, ap);
    va_end(ap);
}

struct model *model_create(uint64_t seed, const struct spool_settings *s)
{
    struct model *m = calloc(1, sizeof *m);
    MUST(m != NULL);
    rng_seed(&m->rng, seed);
    m->settings = *s;
    return m;
}

void model_destroy(struct model **mp)
{
    if (*mp != NULL)
        model_close(*mp);
    free(*mp);
    *mp = NULL;
}

int model_open(struct model *m)
{
    struct spool_owner owner = model_owner;
    owner.ctx = m;
    m->records = 0;
    int r = disk_open(&m->disk, NULL, "shard0");
    if (r < 0)
        return r;
    r = spool_open(&m->spool, m->disk, &m->settings, &owner);
    if (r < 0)
        model_close(m);
    return r;
}

/* --- reading back --- */

struct read_check {
    struct spool_read read; /* first */
    struct read_check *next, **link;
    struct model *model;
    unsigned message;
    int part; /* of chunks; -1: the ENQ */
};

static void check_free(struct read_check *c)
{
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    c->model->reads--;
    free(c);
}

static struct read_check *check_make(struct model *m, unsigned message, int part)
{
    struct read_check *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->model = m;
    c->message = message;
    c->part = part;
    c->next = m->checks;
    c->link = &m->checks;
    if (c->next != NULL)
        c->next->link = &c->next;
    m->checks = c;
    m->reads++;
    return c;
}

void model_close(struct model *m)
{
    spool_close(&m->spool);
    disk_close(&m->disk);
    model_waits_free(m);
    for (unsigned i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        msg->known = false;
        msg->copy = COPY_NONE;
        msg->outstanding = 0;
        msg->redo = 0;
    }
    m->copies = m->redos = 0;
    while (m->checks != NULL)
        check_free(m->checks);
    m->ledger = (struct ledger){0};
}

/* --- after a recovery --- */

static void missing(struct model *m, unsigned i, const char *what)
{
    if (m->damage_expected)
        m->lost++;
    else
        model_fail(m, "LOST: message %u: %s", i, what);
}

static void settle_rcpts(struct model *m, unsigned i)
{
    struct model_message *msg = &m->messages[i];
    for (unsigned k = 0; k < MODEL_RCPTS; k++) {
        uint8_t bit = (uint8_t)(1u << k);
        bool waits = msg->known && (msg->outstanding & bit) != 0;
        bool open = ((msg->done_tried | msg->done_failed) & bit) != 0;
        if ((msg->rcpts & bit) == 0 && waits)
            model_fail(m, "message %u: recipient %u was never there", i, k);
        if ((msg->rcpts & bit) == 0)
            continue;
        if ((msg->done_acked & bit) != 0 && waits && m->damage_expected)
            msg->done_acked &= (uint8_t)~bit;
        else if ((msg->done_acked & bit) != 0 && waits)
            model_fail(m, "DUPLICATE: message %u: recipient %u has a durable fate and is back", i,
                       k);
        else if ((msg->done_acked & bit) == 0 && !waits && !open)
            missing(m, i, "a recipient without a fate is gone");
        if (!waits)
            msg->done_acked |= bit;
    }
    msg->done_tried = 0;
    msg->done_failed = 0;
}

static void settle_message(struct model *m, unsigned i)
{
    struct model_message *msg = &m->messages[i];
    switch (msg->truth) {
    case TRUTH_OPEN:
    case TRUTH_FAILED:
        msg->truth = msg->known ? TRUTH_IN : TRUTH_OUT;
        if (msg->known && msg->outstanding != msg->rcpts)
            model_fail(m, "message %u: not all its recipients", i);
        break;
    case TRUTH_NONE:
    case TRUTH_OUT:
        if (msg->known)
            model_fail(m, "message %u was refused, and is back", i);
        break;
    case TRUTH_IN:
        settle_rcpts(m, i);
        break;
    }
}

void model_settle(struct model *m)
{
    uint64_t accepted = 0, delivered = 0;
    for (unsigned i = 0; i < m->count; i++) {
        const struct model_message *msg = &m->messages[i];
        settle_message(m, i);
        if (msg->truth == TRUTH_IN) {
            accepted += model_bits(msg->rcpts);
            delivered += model_bits(msg->done_acked);
        }
    }
    if (!m->damage_expected && (accepted != m->ledger.accepted || delivered != m->ledger.delivered))
        model_fail(m, "LEDGER: accepted %llu, should be %llu; delivered %llu, should be %llu",
                   (unsigned long long)m->ledger.accepted, (unsigned long long)accepted,
                   (unsigned long long)m->ledger.delivered, (unsigned long long)delivered);
}

static bool same_body(const struct model_message *msg, unsigned message, uint32_t offset,
                      struct span got)
{
    uint8_t *want = malloc(got.n + 1);
    MUST(want != NULL);
    model_body(message, msg->hostile, offset, want, (uint32_t)got.n);
    bool same = got.n == 0 || memcmp(want, got.p, got.n) == 0;
    free(want);
    return same;
}

static void check_read(struct model *m, unsigned i, int part, const struct record_view *v)
{
    const struct model_message *msg = &m->messages[i];
    struct enq e;
    if (part >= 0) {
        if (v->head.type != RECORD_BODY ||
            !same_body(msg, i, (uint32_t)part * msg->chunk_bytes, v->rest))
            model_fail(m, "message %u: chunk %d holds something else", i, part);
        return;
    }
    if (v->head.type != RECORD_ENQ || enq_read(v->meta, &e) < 0 || e.id.lo != i + 1 ||
        v->rest.n < e.trace_bytes) {
        model_fail(m, "message %u: its record is another", i);
        return;
    }
    struct span body = span_of(v->rest.p + e.trace_bytes, v->rest.n - e.trace_bytes);
    if (e.body_bytes != msg->body_bytes || (e.chunk_count == 0 && body.n != msg->body_bytes) ||
        !same_body(msg, i, 0, body))
        model_fail(m, "message %u: its body is another", i);
}

static void on_read(struct spool_read *r, int res, const struct record_view *v)
{
    struct read_check *c = (struct read_check *)r;
    struct model *m = c->model;
    if (res == 0)
        check_read(m, c->message, c->part, v);
    else
        missing(m, c->message, "cannot be read back");
    check_free(c);
}

static void read_part(struct model *m, unsigned i, int part)
{
    const struct model_message *msg = &m->messages[i];
    struct read_check *c = check_make(m, i, part);
    c->read.on_read = on_read;
    int r = spool_read(m->spool, &c->read, part < 0 ? &msg->enq : &msg->chunks[part]);
    if (r == 0)
        return;
    check_free(c);
    if (r != -ENOBUFS)
        missing(m, i, "its place is gone");
}

static void read_message(struct model *m, unsigned i)
{
    read_part(m, i, -1);
    for (unsigned k = 0; k < m->messages[i].chunk_count; k++)
        read_part(m, i, (int)k);
}

void model_read_all(struct model *m)
{
    for (unsigned i = 0; i < m->count && m->failure[0] == '\0'; i++) {
        if (!m->messages[i].known)
            continue;
        read_message(m, i);
        while (m->reads > 0 && sim_disk_step())
            continue;
    }
}

/* --- work --- */

static void turn(struct model *m, uint64_t ms)
{
    m->now_ms += ms;
    spool_turn(m->spool, m->now_ms);
    model_copies_turn(m);
}

void model_drain(struct model *m, unsigned turns_max)
{
    for (unsigned i = 0; i < turns_max && !sim_disk_is_down() && m->failure[0] == '\0'; i++) {
        turn(m, 100);
        if (spool_idle(m->spool) && m->copies == 0 && m->reads == 0 && m->waits == NULL)
            break;
        sim_disk_run();
    }
}

static uint32_t random_size(struct model *m)
{
    switch (rng_below(&m->rng, 8)) {
    case 0:
        return (uint32_t)(10 + rng_below(&m->rng, 40));
    case 1:
        return (uint32_t)(8192 + rng_below(&m->rng, 40000));
    default:
        return (uint32_t)(200 + rng_below(&m->rng, 4000));
    }
}

static void step_enqueue(struct model *m)
{
    uint32_t bytes = random_size(m), chunk = 0;
    if (rng_below(&m->rng, 24) == 0) {
        uint32_t max = m->settings.segment_bytes < (512 << 10) ? 60000 : 300000;
        chunk = (uint32_t)(4096 + rng_below(&m->rng, 28000));
        bytes = (uint32_t)(chunk + rng_below(&m->rng, max));
        if (bytes > chunk * MODEL_CHUNKS)
            bytes = chunk * MODEL_CHUNKS;
    }
    if (model_enqueue(m, bytes, chunk) < 0)
        m->refused++;
}

static unsigned oldest(const struct model *m)
{
    unsigned k = 0;
    while (k + 1 < m->count &&
           (!m->messages[k].known || m->messages[k].outstanding == 0 || (m->sticky && k % 8 == 0)))
        k++;
    return k;
}

/*
 * A message that is acknowledged and not yet done; MODEL_MESSAGES when a few guesses find none.
 * Every eighth stays to the end, so that segments become sparse and are compacted.
 */
static unsigned random_message(struct model *m)
{
    for (unsigned i = 0; i < 8 && m->count > 0; i++) {
        unsigned k = (unsigned)rng_below(&m->rng, i < 4 ? m->count / 4 + 1 : m->count);
        if (i == 0)
            k = oldest(m);
        if ((k % 8 != 0 || !m->sticky) && m->messages[k].truth == TRUTH_IN &&
            m->messages[k].known && m->messages[k].outstanding != 0)
            return k;
    }
    return MODEL_MESSAGES;
}

static void step_outcome(struct model *m, enum record_type type)
{
    unsigned i = random_message(m);
    if (i == MODEL_MESSAGES)
        return;
    uint8_t set = m->messages[i].outstanding;
    if (rng_below(&m->rng, 4) == 0)
        set &= (uint8_t)-set; /* one recipient of them */
    if (model_outcome(m, type, i, set) < 0)
        m->refused++;
}

void model_step(struct model *m)
{
    uint64_t what = rng_below(&m->rng, 100);
    unsigned i;
    if (what < 25)
        step_enqueue(m);
    else if (what < 45)
        step_outcome(m, RECORD_DONE);
    else if (what < 48)
        step_outcome(m, RECORD_DOT);
    else if (what < 50)
        step_outcome(m, RECORD_DEFER);
    else if (what < 52 && (i = random_message(m)) != MODEL_MESSAGES)
        read_message(m, i);
    else if (what < 75)
        turn(m, rng_below(&m->rng, 64) == 0 ? 1500 : rng_below(&m->rng, 20));
    else
        (void)sim_disk_step();
}
