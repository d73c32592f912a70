/*
 * request - see request.h.
 *
 * Invariant: a lane is LANE_BUSY exactly while its request is unanswered. `from` is the state that
 * it goes back to when the driver could not do it: every driver undoes its own work then.
 */
#include "master/netd/request.h"

#include "base/log.h"
#include "master/netd/driver.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const struct driver *const drivers[NETD_DRIVER_COUNT] = {
    [NETD_NONE] = &driver_none, [NETD_L2] = &driver_l2, [NETD_EXEC] = &driver_exec};
static const char *const action_names[NETD_ACTION_COUNT] = {
    [NETD_PREPARE] = "prepare", [NETD_RELEASE] = "release",   [NETD_ACQUIRE] = "acquire",
    [NETD_VERIFY] = "verify",   [NETD_END_TAIL] = "end_tail",
};
static const char *const result_names[] = {
    [DRIVER_OK] = "ok", [DRIVER_RETRY] = "retry", [DRIVER_FAILED] = "failed"};

enum driver_result driver_say(struct lane *l, enum driver_result result, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(l->reason, sizeof l->reason, fmt, args);
    va_end(args);
    return result;
}

/* --- finding lanes --- */

static bool same_number(const void *ctx, uint32_t value, const void *key)
{
    const struct netd *n = ctx;
    return n->lanes[value - 1].place.lane == *(const uint32_t *)key;
}

static bool same_address(const void *ctx, uint32_t value, const void *key)
{
    const struct netd *n = ctx;
    return ip_eq(&n->lanes[value - 1].place.address, key);
}

static uint32_t hash_ip(const struct ip *ip)
{
    return hash_bytes(span_of(ip->b, sizeof ip->b));
}

static struct lane *lane_of(struct netd *n, uint32_t number)
{
    uint32_t i = table_find(&n->by_number, hash_u64(number), same_number, n, &number);
    return i != 0 ? &n->lanes[i - 1] : NULL;
}

struct lane *request_lane_of(struct netd *n, const struct ip *ip)
{
    uint32_t i = table_find(&n->by_address, hash_ip(ip), same_address, n, ip);
    return i != 0 ? &n->lanes[i - 1] : NULL;
}

static void unlist(struct netd *n, struct lane *l)
{
    uint32_t value = (uint32_t)(l - n->lanes) + 1;
    (void)table_remove(&n->by_number, hash_u64(l->place.lane), value);
    (void)table_remove(&n->by_address, hash_ip(&l->place.address), value);
}

static int list(struct netd *n, struct lane *l)
{
    uint32_t value = (uint32_t)(l - n->lanes) + 1;
    int r = table_add(&n->by_number, hash_u64(l->place.lane), value);
    if (r < 0)
        return r;
    r = table_add(&n->by_address, hash_ip(&l->place.address), value);
    if (r < 0)
        (void)table_remove(&n->by_number, hash_u64(l->place.lane), value);
    return r;
}

/* A place for a lane that is not known: a fresh one, or one of a lane that has left. */
static struct lane *room(struct netd *n)
{
    if (n->lane_count < NETD_LANES)
        return &n->lanes[n->lane_count++];
    for (uint32_t i = 0; i < n->lane_count; i++) {
        if (n->lanes[i].state == LANE_ABSENT) {
            unlist(n, &n->lanes[i]);
            return &n->lanes[i];
        }
    }
    return NULL;
}

/* The lane of p, entered when it is new. NULL: another lane has its address, or there is no room.
 */
static struct lane *lane_for(struct netd *n, const struct netd_place *p)
{
    struct lane *l = lane_of(n, p->lane);
    struct lane *other = request_lane_of(n, &p->address);
    if (other != NULL && other != l && other->state != LANE_ABSENT)
        return NULL;
    if (l != NULL && (l->state != LANE_ABSENT || ip_eq(&l->place.address, &p->address)))
        return l;
    if (other != NULL && other != l) {
        unlist(n, other);
        other->place = (struct netd_place){.lane = UINT32_MAX};
    }
    uint32_t epoch = l != NULL ? l->place.epoch : 0;
    if (l != NULL)
        unlist(n, l);
    else
        l = room(n);
    if (l == NULL)
        return NULL;
    *l = (struct lane){.place = *p, .state = LANE_ABSENT, .hook_fd = -1};
    l->place.epoch = epoch;
    l->place.forward = (struct netd_tail){.port_low = 0};
    return list(n, l) == 0 ? l : NULL;
}

/* --- answers --- */

static void answer(struct netd *n, const struct netd_request *r, enum driver_result result,
                   const char *reason, uint64_t began_ns)
{
    static const enum netd_result of[] = {
        [DRIVER_OK] = NETD_OK, [DRIVER_RETRY] = NETD_RETRY, [DRIVER_FAILED] = NETD_FAILED};
    struct netd_frame f = {.kind = NETD_ANSWER};
    char text[IP_TEXT];

    MUST(result != DRIVER_PENDING);
    ip_format(&r->place.address, text);
    f.answer = (struct netd_answer){
        .id = r->id, .result = of[result], .microseconds = (netd_now_ns() - began_ns) / 1000};
    if (result != DRIVER_OK)
        (void)snprintf(f.answer.reason, sizeof f.answer.reason, "%s", reason);
    log_line(result == DRIVER_OK ? LOG_NOTE : LOG_WARN,
             "%s lane=%u address=%s epoch=%u driver=%s us=%llu %s%s%s", action_names[r->action],
             r->place.lane, text, r->place.epoch, drivers[r->place.driver]->name,
             (unsigned long long)f.answer.microseconds, result_names[result],
             result == DRIVER_OK ? "" : ": ", f.answer.reason);
    int e = netd_send(n->control_fd, &f);
    /* The master asks again: every action may be repeated. */
    if (e < 0)
        log_warn("answer %llu was not taken: %s", (unsigned long long)r->id, strerror(-e));
}

/* --- the table --- */

struct happening {
    const struct netd_request *request; /* EV_PREPARE .. EV_END_TAIL */
    enum driver_result result;          /* EV_DONE, EV_UNDONE */
};
typedef void cell(struct netd *n, struct lane *l, const struct happening *h);

static const struct driver *driver_of(const struct lane *l)
{
    return drivers[l->state == LANE_BUSY ? l->request.place.driver : l->place.driver];
}

static void lane_event(struct netd *n, struct lane *l, enum lane_event e,
                       const struct happening *h);

static void conclude(struct netd *n, struct lane *l, enum driver_result result)
{
    if (result == DRIVER_PENDING)
        return;
    struct happening h = {.result = result};
    lane_event(n, l, result == DRIVER_OK ? EV_DONE : EV_UNDONE, &h);
}

static void begin(struct netd *n, struct lane *l, const struct happening *h)
{
    l->request = *h->request;
    l->from = l->state;
    l->state = LANE_BUSY;
    l->phase = PHASE_NONE;
    l->reason[0] = '\0';
    l->began_ns = n->now_ns;
    l->deadline_ns = n->now_ns + l->request.deadline_ms * 1000000ull;
    conclude(n, l, driver_of(l)->begin[l->request.action](n, l));
}

static void already(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)l;
    answer(n, h->request, DRIVER_OK, "", n->now_ns);
}

static void absent(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)l;
    answer(n, h->request, DRIVER_FAILED, "this host does not hold the lane", n->now_ns);
}

static void later(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)l;
    answer(n, h->request, DRIVER_RETRY, "another request of the lane is under way", n->now_ns);
}

/* Where a lane is after its request was done. */
static enum lane_state state_after(const struct lane *l)
{
    switch (l->request.action) {
    case NETD_RELEASE:
        return l->request.place.tail ? LANE_TAIL : LANE_ABSENT;
    case NETD_ACQUIRE:
        return LANE_HELD;
    case NETD_END_TAIL:
        return l->from == LANE_TAIL ? LANE_ABSENT : l->from;
    case NETD_PREPARE:
    case NETD_VERIFY:
    case NETD_ACTION_COUNT:
        break;
    }
    return l->from;
}

static void done(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)h;
    struct netd_tail forward = l->place.forward;
    l->state = state_after(l);
    if (l->request.action == NETD_ACQUIRE || l->request.action == NETD_RELEASE) {
        uint32_t epoch = l->request.place.epoch;
        MUST(epoch >= l->place.epoch);
        l->place = l->request.place;
        l->place.forward = forward;
    }
    answer(n, &l->request, DRIVER_OK, "", l->began_ns);
}

static void undone(struct netd *n, struct lane *l, const struct happening *h)
{
    driver_of(l)->abandon(n, l);
    l->state = l->from;
    answer(n, &l->request, h->result, l->reason, l->began_ns);
}

/* Somebody removed the address, or we could not renew it in time. The master decides what then. */
static void gone(struct netd *n, struct lane *l, const struct happening *h)
{
    struct netd_frame f = {.kind = NETD_NOTICE};
    char text[IP_TEXT];

    (void)h;
    ip_format(&l->place.address, text);
    f.notice =
        (struct netd_notice){.what = NETD_GONE, .lane = l->place.lane, .epoch = l->place.epoch};
    (void)snprintf(f.notice.reason, sizeof f.notice.reason, "%s is not on %s any more", text,
                   l->state == LANE_TAIL ? "lo" : l->place.interface);
    log_err("lane=%u %s", l->place.lane, f.notice.reason);
    l->state = LANE_ABSENT;
    l->announce_ns = 0;
    if (netd_send(n->control_fd, &f) < 0)
        log_warn("lane=%u: the master did not take a notice", l->place.lane);
}

static void nothing(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)n;
    (void)l;
    (void)h;
}

static _Noreturn void never(struct netd *n, struct lane *l, const struct happening *h)
{
    (void)n;
    (void)l;
    (void)h;
    check_failed("only a request that is under way ends", __FILE__, __LINE__);
}

/* clang-format off */
static cell *const table[LANE_STATE_COUNT][LANE_EVENT_COUNT] = {
    /*                PREPARE  RELEASE  ACQUIRE  VERIFY  END_TAIL  DONE   UNDONE  GONE    */
    [LANE_ABSENT] = { begin,   already, begin,   absent, already,  never, never,  nothing },
    [LANE_HELD]   = { already, begin,   begin,   begin,  begin,    never, never,  gone    },
    [LANE_TAIL]   = { begin,   already, begin,   absent, begin,    never, never,  gone    },
    [LANE_BUSY]   = { later,   later,   later,   later,  later,    done,  undone, nothing },
};
/* clang-format on */

static void lane_event(struct netd *n, struct lane *l, enum lane_event e, const struct happening *h)
{
    table[l->state][e](n, l, h);
}

const char *request_cell_name(enum lane_state s, enum lane_event e)
{
    static const struct {
        cell *f;
        const char *name;
    } names[] = {{begin, "begin"}, {already, "already"}, {absent, "absent"},
                 {later, "later"}, {done, "done"},       {undone, "undone"},
                 {gone, "gone"},   {nothing, "nothing"}, {never, "never"}};
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        if (names[i].f == table[s][e])
            return names[i].name;
    }
    return "";
}

/* --- from the master --- */

/* NULL, or why the request cannot be meant for this lane as it is. */
static const char *refuse(const struct lane *l, const struct netd_place *p)
{
    if (l == NULL)
        return "the address belongs to another lane here, or there are too many lanes";
    if (p->epoch < l->place.epoch)
        return "this epoch of the lane is over";
    if (l->state == LANE_HELD || l->state == LANE_TAIL) {
        if (!ip_eq(&l->place.address, &p->address))
            return "the lane is here with another address";
        if (l->place.driver != p->driver)
            return "the lane is here with another driver";
        if (l->state == LANE_HELD && strcmp(l->place.interface, p->interface) != 0)
            return "the lane is here on another interface";
    }
    return NULL;
}

void request_take(struct netd *n, const struct netd_request *r)
{
    struct lane *l = lane_for(n, &r->place);
    const char *why = refuse(l, &r->place);
    if (why != NULL) {
        answer(n, r, DRIVER_FAILED, why, n->now_ns);
        return;
    }
    struct happening h = {.request = r};
    lane_event(n, l, (enum lane_event)(r->action - NETD_PREPARE), &h);
}

int request_hold(struct netd *n, const struct netd_place *p)
{
    const struct lane *known = lane_of(n, p->lane);
    if (known != NULL && known->state != LANE_ABSENT)
        return -EBADMSG;
    struct lane *l = lane_for(n, p);
    if (l == NULL)
        return -EBADMSG;
    l->place = *p;
    l->state = p->tail ? LANE_TAIL : LANE_HELD;
    return 0;
}

static bool is_held(void *ctx, const struct nl_address *a)
{
    struct netd *n = ctx;
    const struct lane *l = request_lane_of(n, &a->ip);
    if (l == NULL || l->place.driver != NETD_L2)
        return false;
    if (l->state == LANE_TAIL)
        return a->ifindex == NL_LOOPBACK;
    return l->state == LANE_HELD && a->ifindex == l->ifindex;
}

static void settle_lane(struct netd *n, struct lane *l)
{
    if (l->state == LANE_ABSENT || drivers[l->place.driver]->holds(n, l)) {
        drivers[l->place.driver]->renew(n, l);
        return;
    }
    log_note("lane=%u epoch=%u is not here: to be acquired", l->place.lane, l->place.epoch);
    l->state = LANE_ABSENT;
    l->place.forward = (struct netd_tail){.port_low = 0};
}

int request_settle(struct netd *n)
{
    char reason[NETD_REASON_BYTES];
    for (uint32_t i = 0; i < n->lane_count; i++) {
        struct lane *l = &n->lanes[i];
        if (l->place.driver != NETD_L2 || l->state != LANE_HELD)
            continue;
        const struct nic *nic = nic_get(&n->nics, l->place.interface, reason, sizeof reason);
        l->ifindex = nic != NULL ? nic->ifindex : 0;
        if (nic == NULL)
            log_warn("lane=%u %s", l->place.lane, reason);
    }
    int removed = rtnl_remove_others(&n->rtnl, is_held, n);
    for (uint32_t i = 0; removed >= 0 && i < n->lane_count; i++)
        settle_lane(n, &n->lanes[i]);
    int r = driver_l2_restore(n);
    n->can_forward = r == 0;
    if (r < 0)
        log_warn("tails cannot be forwarded (nf_tables, netdev ingress, fwd): %s", strerror(-r));
    return removed;
}

/* --- time --- */

static void look_at(struct netd *n, struct lane *l)
{
    const struct driver *d = driver_of(l);
    bool probe_over = l->phase == PHASE_PROBE && n->now_ns >= l->probe.until_ns;

    if (l->state == LANE_BUSY && (l->stirred || probe_over)) {
        l->stirred = false;
        conclude(n, l, d->step(n, l));
    }
    if (l->state == LANE_BUSY && n->now_ns >= l->deadline_ns) {
        (void)driver_say(l, DRIVER_RETRY, "not done within %llu ms",
                         (unsigned long long)((l->deadline_ns - l->began_ns) / 1000000));
        conclude(n, l, DRIVER_RETRY);
    }
    if (l->stirred && (l->state == LANE_HELD || l->state == LANE_TAIL) && !d->holds(n, l)) {
        struct happening none = {.request = NULL};
        lane_event(n, l, EV_GONE, &none);
    }
    l->stirred = false;
    if (l->announce_ns != 0 && n->now_ns >= l->announce_ns)
        d->announce(n, l);
}

void request_turn(struct netd *n)
{
    bool renew = n->now_ns >= n->renew_ns;
    for (uint32_t i = 0; i < n->lane_count; i++) {
        struct lane *l = &n->lanes[i];
        if (l->state == LANE_ABSENT) {
            l->stirred = false; /* what is not here has nothing to look at, now or next time */
            continue;
        }
        look_at(n, l);
        if (renew && l->state != LANE_ABSENT)
            driver_of(l)->renew(n, l);
    }
    if (renew)
        n->renew_ns = n->now_ns + NETD_RENEW_MS * 1000000ull;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t request_next_ns(const struct netd *n)
{
    uint64_t next = n->renew_ns;
    for (uint32_t i = 0; i < n->lane_count; i++) {
        const struct lane *l = &n->lanes[i];
        if (l->state == LANE_BUSY)
            next = earlier(next, l->deadline_ns);
        if (l->state == LANE_BUSY && l->phase == PHASE_PROBE)
            next = earlier(next, l->probe.until_ns);
        if (l->state != LANE_ABSENT && l->announce_ns != 0)
            next = earlier(next, l->announce_ns);
        if (l->stirred)
            next = 0;
    }
    return next;
}

void request_stir(struct netd *n, const struct ip *ip)
{
    struct lane *l = ip != NULL ? request_lane_of(n, ip) : NULL;
    if (l != NULL)
        l->stirred = true;
    for (uint32_t i = 0; ip == NULL && i < n->lane_count; i++)
        n->lanes[i].stirred = true;
}
