/* The owner that the spool sees: index, ledger, appends, copies. See spool_model.h. */
#include "tests/crash/spool_model.h"

#include <errno.h>
#include <stdlib.h>

enum { META_BYTES = 2048, TRACE_BYTES = 40, CHUNK_BYTES_MAX = 128 << 10, FORGED_PERIOD = 129 };

enum wait_kind { WAIT_ENQ, WAIT_COPY, WAIT_DONE, WAIT_OTHER };
struct model_wait {
    struct spool_wait wait; /* first */
    struct model_wait *next, *prev;
    struct model *model;
    enum wait_kind kind;
    unsigned message;
    uint8_t rcpts;
    struct model_message copy; /* WAIT_COPY: places to be */
};

/* --- contents --- */

/*
 * A fate of another message, as a sender would write it who knows the format, guesses the segment
 * and tries all sequences, but does not know the shard's secret. The odd period brings each guess
 * to every alignment.
 */
static void forge(uint8_t out[FORGED_PERIOD], unsigned message, uint32_t nth)
{
    static const uint8_t index[2] = {0, 0};
    uint8_t meta[128];
    struct outcome o = {.id = {1, message / 2 + 1},
                        .fate = FATE_DELIVERED,
                        .count = 1,
                        .indices = span_of(index, sizeof index)};
    struct writer w = writer_of(meta, sizeof meta);
    outcome_put(&w, &o);
    struct record_head h = {.type = message % 2 == 0 ? RECORD_DONE : RECORD_BATCH,
                            .meta_bytes = (uint32_t)(RECORD_HEAD_BYTES + w.n),
                            .bytes = (uint32_t)(RECORD_HEAD_BYTES + w.n),
                            .segment = 1 + message % 4 / 3,
                            .sequence = message + 2 + nth / 8};
    MUST(h.bytes < FORGED_PERIOD);
    memset(out, 0, FORGED_PERIOD);
    record_head_write(out, &h, span_of(meta, w.n), NULL, 0);
    memcpy(out + RECORD_HEAD_BYTES, meta, w.n);
}

enum { PATTERN_BYTES = 1 << 16 };

/* Noise, twice, so that any run of PATTERN_BYTES can be copied at once. */
static const uint8_t *pattern(void)
{
    static uint8_t noise[2 * PATTERN_BYTES];
    static bool ready;
    for (uint32_t i = 0; i < sizeof noise && !ready; i++)
        noise[i] = (uint8_t)(i % PATTERN_BYTES * 2246822519u >> 24);
    ready = true;
    return noise;
}

void model_body(unsigned message, bool hostile, uint32_t offset, uint8_t *out, uint32_t n)
{
    uint8_t forged[FORGED_PERIOD];
    for (uint32_t i = 0; i < n && hostile; i++) {
        uint32_t at = offset + i;
        if (i == 0 || at % FORGED_PERIOD == 0)
            forge(forged, message, at / FORGED_PERIOD);
        out[i] = forged[at % FORGED_PERIOD];
    }
    for (uint32_t i = 0; i < n && !hostile; i += PATTERN_BYTES) {
        uint32_t from = (offset + i + message * 7919) % PATTERN_BYTES;
        memcpy(out + i, pattern() + from, n - i < PATTERN_BYTES ? n - i : PATTERN_BYTES);
    }
}

unsigned model_bits(uint8_t set)
{
    return (unsigned)__builtin_popcount(set);
}

/* --- living bytes --- */

static void account(struct model *m, const struct model_message *msg, int sign)
{
    spool_live(m->spool, msg->enq.segment, (int64_t)msg->enq.bytes * sign);
    for (unsigned i = 0; i < msg->chunk_count; i++)
        spool_live(m->spool, msg->chunks[i].segment, (int64_t)msg->chunks[i].bytes * sign);
}

static void copy_end(struct model *m, struct model_message *msg, int res)
{
    if (msg->copy == COPY_NONE)
        return;
    msg->copy = COPY_NONE;
    m->copies--;
    spool_copied(m->spool, res);
}

/* All fates are durable: the message leaves the index. */
static void forget(struct model *m, struct model_message *msg)
{
    if (!m->eager)
        account(m, msg, -1);
    msg->known = false;
    copy_end(m, msg, 0);
}

/* --- durability --- */

static void on_enq(struct model *m, struct model_wait *w, int res)
{
    struct model_message *msg = &m->messages[w->message];
    if (res == 0) {
        msg->truth = TRUTH_IN;
        m->acked++;
        return;
    }
    msg->truth = TRUTH_FAILED;
    m->failed++;
    m->ledger.accepted -= model_bits(msg->rcpts);
    account(m, msg, -1);
    msg->known = false;
}

static void on_copy(struct model *m, struct model_wait *w, int res)
{
    struct model_message *msg = &m->messages[w->message];
    if (res < 0) {
        account(m, &w->copy, -1);
    } else if (m->eager && (!msg->known || msg->outstanding == 0)) {
        account(m, &w->copy, -1); /* its fates were appended meanwhile */
    } else if (msg->known) {
        account(m, msg, -1);
        msg->enq = w->copy.enq;
        memcpy(msg->chunks, w->copy.chunks, sizeof msg->chunks);
        msg->chunk_count = w->copy.chunk_count;
    } else {
        model_fail(m, "message %u was forgotten before its copy was durable", w->message);
    }
    copy_end(m, msg, res);
}

static void on_done(struct model *m, struct model_wait *w, int res)
{
    struct model_message *msg = &m->messages[w->message];
    if (res == 0) {
        msg->done_acked |= w->rcpts;
        if (msg->done_acked == msg->rcpts)
            forget(m, msg);
        return;
    }
    /* What an owner does: the fate is not recorded, so it is recorded again later. */
    msg->done_tried &= (uint8_t)~w->rcpts;
    msg->done_failed |= w->rcpts;
    m->ledger.delivered -= model_bits(w->rcpts);
    if (m->eager) {
        m->redos += msg->redo == 0;
        msg->redo |= w->rcpts;
        spool_keep(m->spool, true);
        return;
    }
    msg->outstanding |= w->rcpts;
    if (msg->copy == COPY_FATE)
        copy_end(m, msg, res);
}

/* Anything acknowledged decides what failed before: its numbers were taken again. */
static void decide_failed(struct model *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        struct model_message *msg = &m->messages[i];
        if (msg->truth == TRUTH_FAILED)
            msg->truth = TRUTH_OUT;
        msg->done_failed = 0;
    }
}

static void on_durable(struct spool_wait *sw, int res)
{
    struct model_wait *w = (struct model_wait *)sw;
    struct model *m = w->model;
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        m->waits = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    if (res == 0)
        decide_failed(m);
    if (w->kind == WAIT_ENQ)
        on_enq(m, w, res);
    else if (w->kind == WAIT_COPY)
        on_copy(m, w, res);
    else if (w->kind == WAIT_DONE)
        on_done(m, w, res);
    free(w);
}

static struct model_wait *wait_make(struct model *m, enum wait_kind kind, unsigned message)
{
    struct model_wait *w = calloc(1, sizeof *w);
    MUST(w != NULL);
    w->wait.on_durable = on_durable;
    w->model = m;
    w->kind = kind;
    w->message = message;
    return w;
}

static void wait_link(struct model *m, struct model_wait *w)
{
    w->next = m->waits;
    if (w->next != NULL)
        w->next->prev = w;
    m->waits = w;
}

void model_waits_free(struct model *m)
{
    while (m->waits != NULL) {
        struct model_wait *w = m->waits;
        m->waits = w->next;
        free(w);
    }
}

/* --- appends --- */

static int append_chunk(struct model *m, unsigned message, unsigned ordinal,
                        struct record_place *place)
{
    static uint8_t body[CHUNK_BYTES_MAX];
    uint8_t meta[META_BYTES];
    const struct model_message *msg = &m->messages[message];
    uint32_t at = ordinal * msg->chunk_bytes;
    uint32_t n = msg->body_bytes - at < msg->chunk_bytes ? msg->body_bytes - at : msg->chunk_bytes;
    struct writer w = writer_of(meta, sizeof meta);
    body_put(&w, (struct msg_id){1, message + 1}, ordinal);
    model_body(message, msg->hostile, at, body, n);
    struct spool_append a = {.type = RECORD_BODY,
                             .meta = span_of(meta, w.n),
                             .rest = {span_of(body, n)},
                             .rest_count = 1,
                             .fate = msg->copy != COPY_NONE};
    return spool_append(m->spool, &a, NULL, place);
}

/* The ENQ of a message; places of chunks stand in *at. */
static int append_enq(struct model *m, unsigned message, uint8_t rcpts, struct model_message *at,
                      struct spool_wait *wait)
{
    static uint8_t rest[TRACE_BYTES + CHUNK_BYTES_MAX];
    uint8_t meta[META_BYTES];
    const struct model_message *msg = &m->messages[message];
    bool copy = msg->copy != COPY_NONE;
    struct enq e = {.id = {1, message + 1},
                    .body_bytes = msg->body_bytes,
                    .trace_bytes = TRACE_BYTES,
                    .flags = copy ? ENQ_COPY : 0,
                    .sender = span_str("sender@example.org"),
                    .tenant = span_str("acme"),
                    .rcpt_count = (uint16_t)model_bits(rcpts),
                    .chunk_count = (uint16_t)at->chunk_count};
    struct writer w = writer_of(meta, sizeof meta);
    enq_put(&w, &e);
    for (unsigned i = 0; i < MODEL_RCPTS; i++) {
        struct enq_rcpt r = {.index = (uint16_t)i, .address = span_str("rcpt@example.net")};
        if (rcpts >> i & 1)
            enq_put_rcpt(&w, &r);
    }
    for (unsigned i = 0; i < at->chunk_count; i++) {
        struct enq_chunk c = {at->chunks[i], msg->chunk_bytes};
        if (i == at->chunk_count - 1)
            c.body_bytes = msg->body_bytes - i * msg->chunk_bytes;
        enq_put_chunk(&w, &c);
    }
    MUST(!w.bad);
    memset(rest, 't', TRACE_BYTES);
    uint32_t inline_bytes = at->chunk_count == 0 ? msg->body_bytes : 0;
    model_body(message, msg->hostile, 0, rest + TRACE_BYTES, inline_bytes);
    struct spool_append a = {.type = RECORD_ENQ,
                             .lane = 1,
                             .position = message + 1,
                             .meta = span_of(meta, w.n),
                             .rest = {span_of(rest, TRACE_BYTES + inline_bytes)},
                             .rest_count = 1,
                             .fate = copy};
    return spool_append(m->spool, &a, wait, &at->enq);
}

/* Chunks, then the ENQ; on an error what was appended is dead weight. */
static int append_message(struct model *m, unsigned message, uint8_t rcpts, struct spool_wait *wait,
                          struct model_message *at)
{
    const struct model_message *msg = &m->messages[message];
    at->chunk_count = 0;
    for (uint32_t done = 0; msg->chunk_bytes > 0 && done < msg->body_bytes;
         done += msg->chunk_bytes) {
        int r = append_chunk(m, message, at->chunk_count, &at->chunks[at->chunk_count]);
        if (r < 0)
            return r;
        at->chunk_count++;
    }
    return append_enq(m, message, rcpts, at, wait);
}

int model_enqueue(struct model *m, uint32_t bytes, uint32_t chunk_bytes)
{
    if (m->count == MODEL_MESSAGES)
        return -ENOBUFS;
    MUST(chunk_bytes == 0 ? bytes <= CHUNK_BYTES_MAX : bytes <= chunk_bytes * MODEL_CHUNKS);
    unsigned i = m->count;
    struct model_message *msg = &m->messages[i];
    *msg = (struct model_message){.body_bytes = bytes, .chunk_bytes = chunk_bytes};
    msg->rcpts = (uint8_t)(1 + rng_below(&m->rng, (1 << MODEL_RCPTS) - 1));
    msg->hostile =
        m->bodies == BODIES_HOSTILE || (m->bodies == BODIES_MIXED && rng_below(&m->rng, 8) == 0);
    struct model_wait *w = wait_make(m, WAIT_ENQ, i);
    int r = append_message(m, i, msg->rcpts, &w->wait, msg);
    if (r < 0) {
        free(w);
        return r;
    }
    m->count++;
    wait_link(m, w);
    msg->truth = TRUTH_OPEN;
    msg->known = true;
    msg->outstanding = msg->rcpts;
    m->ledger.accepted += model_bits(msg->rcpts);
    account(m, msg, 1);
    return 0;
}

int model_outcome(struct model *m, enum record_type type, unsigned message, uint8_t rcpts)
{
    struct model_message *msg = &m->messages[message];
    uint8_t meta[META_BYTES], indices[2 * MODEL_RCPTS] = {0};
    uint16_t n = 0;
    for (uint8_t i = 0; i < MODEL_RCPTS; i++) {
        if (rcpts >> i & 1)
            indices[2 * n++] = i;
    }
    struct outcome o = {.id = {1, message + 1},
                        .fate = type == RECORD_DONE ? FATE_DELIVERED : FATE_NONE,
                        .count = n,
                        .indices = span_of(indices, (size_t)n * 2)};
    struct writer w = writer_of(meta, sizeof meta);
    outcome_put(&w, &o);
    struct spool_append a = {.type = (uint8_t)type,
                             .lane = 1,
                             .meta = span_of(meta, w.n),
                             .rest = {span_str("250 2.0.0 ok")},
                             .rest_count = 1,
                             .fate = true};
    if (type != RECORD_DONE)
        return spool_append(m->spool, &a, NULL, NULL);
    struct model_wait *mw = wait_make(m, WAIT_DONE, message);
    mw->rcpts = rcpts;
    int r = spool_append(m->spool, &a, &mw->wait, NULL);
    if (r < 0) {
        free(mw);
        return r;
    }
    wait_link(m, mw);
    bool last = msg->outstanding != 0 && (msg->outstanding & (uint8_t)~rcpts) == 0;
    msg->outstanding &= (uint8_t)~rcpts;
    msg->done_tried |= rcpts;
    if (m->eager && last) {
        account(m, msg, -1);
        if (msg->copy == COPY_WANTED)
            copy_end(m, msg, 0);
    }
    m->ledger.delivered += model_bits(rcpts);
    return 0;
}

/* --- copies --- */

static void copy_try(struct model *m, unsigned message)
{
    struct model_message *msg = &m->messages[message];
    if (msg->outstanding == 0) {
        msg->copy = COPY_FATE;
        return;
    }
    if (msg->redo != 0) /* the copy would leave out a recipient whose fate is not in the log */
        return;
    struct model_wait *w = wait_make(m, WAIT_COPY, message);
    int r = append_message(m, message, msg->outstanding, &w->wait, &w->copy);
    if (r < 0) {
        free(w);
        if (r != -ENOBUFS)
            copy_end(m, msg, r);
        return;
    }
    wait_link(m, w);
    msg->copy = COPY_APPENDED;
    account(m, &w->copy, 1);
}

static void redo(struct model *m)
{
    for (unsigned i = 0; i < m->count && m->redos > 0; i++) {
        struct model_message *msg = &m->messages[i];
        uint8_t rcpts = msg->redo;
        if (rcpts == 0 || rng_below(&m->rng, 8) != 0) /* not at once, and not in order */
            continue;
        if (model_outcome(m, RECORD_DONE, i, rcpts) < 0)
            continue;
        msg->redo &= (uint8_t)~rcpts;
        m->redos -= msg->redo == 0;
    }
    if (m->redos == 0)
        spool_keep(m->spool, false);
}

void model_copies_turn(struct model *m)
{
    if (m->redos > 0)
        redo(m);
    for (unsigned i = 0; i < m->count && m->copies > 0; i++) {
        if (m->messages[i].copy == COPY_WANTED)
            copy_try(m, i);
    }
}

static bool lies_in(const struct model_message *msg, uint64_t segment)
{
    bool in = msg->enq.segment == segment;
    for (unsigned i = 0; i < msg->chunk_count; i++)
        in |= msg->chunks[i].segment == segment;
    return in;
}

static bool owner_copy(void *ctx, struct msg_id id, uint64_t segment)
{
    struct model *m = ctx;
    if (id.hi != 1 || id.lo == 0 || id.lo > m->count)
        return false;
    struct model_message *msg = &m->messages[id.lo - 1];
    if (!msg->known || !lies_in(msg, segment) || (m->eager && msg->outstanding == 0))
        return false;
    if (msg->truth == TRUTH_OPEN)
        model_fail(m, "asked to copy message %u which is not durable", (unsigned)id.lo - 1);
    if (msg->copy != COPY_NONE)
        model_fail(m, "asked twice to copy message %u", (unsigned)id.lo - 1);
    msg->copy = COPY_WANTED;
    m->copies++;
    return true;
}

/* --- recovery --- */

static void apply_enq(struct model *m, const struct record_view *v)
{
    struct enq e;
    struct enq_rcpt r;
    struct enq_chunk c;
    if (enq_read(v->meta, &e) < 0 || e.id.hi != 1 || e.id.lo == 0 || e.id.lo > m->count) {
        model_fail(m, "an ENQ that nobody wrote");
        return;
    }
    struct model_message *msg = &m->messages[e.id.lo - 1];
    if (msg->known)
        account(m, msg, -1);
    if ((e.flags & ENQ_COPY) == 0)
        m->ledger.accepted += e.rcpt_count;
    msg->known = true;
    msg->outstanding = 0;
    msg->enq = v->place;
    msg->chunk_count = 0;
    while (enq_rcpt_next(&e.rcpts, &r))
        msg->outstanding |= (uint8_t)(1u << r.index);
    while (enq_chunk_next(&e.chunks, &c) && msg->chunk_count < MODEL_CHUNKS)
        msg->chunks[msg->chunk_count++] = c.place;
    account(m, msg, 1);
}

static void apply_done(struct model *m, const struct record_view *v)
{
    struct outcome o;
    if (outcome_read(v->meta, &o) < 0 || o.id.hi != 1 || o.id.lo == 0 || o.id.lo > m->count) {
        model_fail(m, "an outcome that nobody wrote");
        return;
    }
    if (v->head.type != RECORD_DONE)
        return;
    struct model_message *msg = &m->messages[o.id.lo - 1];
    uint8_t set = 0;
    for (unsigned i = 0; i < o.count; i++)
        set |= (uint8_t)(1u << outcome_index(&o, i));
    if (msg->known) /* else its ENQ has left the log: the fate counts all the same */
        set &= msg->outstanding;
    m->ledger.delivered += model_bits(set);
    msg->outstanding &= (uint8_t)~set;
    if (msg->known && msg->outstanding == 0) {
        account(m, msg, -1);
        msg->known = false;
    }
}

static void owner_apply(void *ctx, const struct record_view *v)
{
    struct model *m = ctx;
    m->records++;
    if (v->head.type == RECORD_ENQ)
        apply_enq(m, v);
    else if (v->head.type == RECORD_DONE || v->head.type == RECORD_DOT ||
             v->head.type == RECORD_DEFER)
        apply_done(m, v);
    else if (v->head.type == RECORD_LEDGER && ledger_read(v->meta, &m->ledger) < 0)
        model_fail(m, "a ledger that cannot be read");
}

static void owner_damage(void *ctx, const struct record_place *where, const char *why)
{
    struct model *m = ctx;
    m->damages++;
    if (!m->damage_expected)
        model_fail(m, "damage reported: segment %llu offset %u: %s",
                   (unsigned long long)where->segment, where->offset, why);
}

static void owner_snapshot(void *ctx)
{
    struct model *m = ctx;
    uint8_t meta[META_BYTES];
    struct writer w = writer_of(meta, sizeof meta);
    ledger_put(&w, &m->ledger);
    struct spool_append a = {.type = RECORD_LEDGER, .meta = span_of(meta, w.n), .fate = true};
    if (spool_append(m->spool, &a, NULL, NULL) < 0)
        m->refused++;
}

const struct spool_owner model_owner = {
    .apply = owner_apply,
    .damage = owner_damage,
    .snapshot = owner_snapshot,
    .copy = owner_copy,
};
