/*
 * supervise - see supervise.h.
 *
 * Invariants: a process exists exactly in STARTING, READY, DRAINING and KILLING. `deadline_ms`
 * belongs to the state: every handler that changes the state sets it.
 */
#include "master/supervise.h"

#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef enum slot_state handler(struct slot *s, uint64_t now);

static const char *const state_words[SLOT_STATE_COUNT] = {
    [SLOT_EMPTY] = "empty",       [SLOT_STARTING] = "starting", [SLOT_READY] = "ready",
    [SLOT_DRAINING] = "draining", [SLOT_KILLING] = "killing",   [SLOT_BACKOFF] = "backoff",
};
static const char *const event_words[SLOT_EV_COUNT] = {
    [SLOT_EV_SPAWN] = "spawn", [SLOT_EV_READY] = "ready",         [SLOT_EV_RECOVERED] = "recovered",
    [SLOT_EV_EXIT] = "exit",   [SLOT_EV_TIMEOUT] = "timeout",     [SLOT_EV_STOP] = "stop",
    [SLOT_EV_DRAIN] = "drain", [SLOT_EV_BAD_FRAME] = "bad-frame",
};

const char *slot_state_word(enum slot_state s)
{
    MUST(s < SLOT_STATE_COUNT);
    return state_words[s];
}
const char *slot_event_word(enum slot_event e)
{
    MUST(e < SLOT_EV_COUNT);
    return event_words[e];
}

uint64_t slot_backoff_ms(uint32_t failures)
{
    if (failures == 0)
        return 0;
    uint64_t ms = SLOT_BACKOFF_MS_MIN;
    for (uint32_t i = 1; i < failures && ms < SLOT_BACKOFF_MS_MAX; i++)
        ms *= 2;
    return ms < SLOT_BACKOFF_MS_MAX ? ms : SLOT_BACKOFF_MS_MAX;
}

/* No process now: the next one after the back-off, or none at all. */
static enum slot_state rest(struct slot *s, uint64_t now)
{
    s->deadline_ms = 0;
    if (!s->wanted)
        return SLOT_EMPTY;
    uint64_t delay = slot_backoff_ms(s->failures);
    s->deadline_ms = now + delay;
    s->ops->waits(s, delay);
    return SLOT_BACKOFF;
}

static enum slot_state spawn(struct slot *s, uint64_t now)
{
    s->wanted = true;
    s->recovered = false;
    s->asked = false;
    s->spawned_ms = now;
    int rc = s->ops->spawn(s);
    if (rc < 0) {
        s->failures++;
        snprintf(s->last_exit, sizeof s->last_exit, "could not be started: %s", strerror(-rc));
        return rest(s, now);
    }
    s->deadline_ms = now + s->ready_ms_max;
    return SLOT_STARTING;
}

static enum slot_state respawn(struct slot *s, uint64_t now)
{
    s->restarts++;
    return spawn(s, now);
}

static enum slot_state ready(struct slot *s, uint64_t now)
{
    s->ready_ms = now;
    s->deadline_ms = s->must_recover ? now + s->recover_ms_max : 0;
    s->ops->ready(s);
    return SLOT_READY;
}

static enum slot_state outlaw(struct slot *s, uint64_t now)
{
    s->asked = false; /* its own fault, whatever we had in mind */
    s->ops->signal(s, SIGKILL);
    s->deadline_ms = now + SLOT_TERM_MS;
    return SLOT_KILLING;
}

static enum slot_state holds(struct slot *s, uint64_t now)
{
    if (s->recovered || !s->must_recover)
        return outlaw(s, now);
    s->recovered = true;
    s->deadline_ms = 0;
    s->ops->recovered(s);
    return SLOT_READY;
}

/* The predecessor of a draining process may leave just now: its shards are worth having. */
static enum slot_state inherits(struct slot *s, uint64_t now)
{
    uint64_t deadline = s->deadline_ms;
    enum slot_state next = holds(s, now);
    if (next == SLOT_KILLING)
        return next;
    s->deadline_ms = deadline;
    return SLOT_DRAINING;
}

static enum slot_state early(struct slot *s, uint64_t now)
{
    s->failures++;
    s->ops->gone(s, s->asked);
    return rest(s, now);
}

static enum slot_state late(struct slot *s, uint64_t now)
{
    bool quick = s->late_death_ms != 0 && now - s->late_death_ms <= SLOT_QUICK_MS;
    s->failures = quick ? s->failures + 1 : 0;
    s->late_death_ms = now;
    s->ops->gone(s, s->asked);
    return rest(s, now);
}

/* After a drain or a signal: a death that we asked for is no failure. */
static enum slot_state left(struct slot *s, uint64_t now)
{
    s->failures = s->asked ? 0 : s->failures + 1;
    s->ops->gone(s, s->asked);
    return rest(s, now);
}

/* Hangs: the crash path is the way out, and what comes next counts as a failure. */
static enum slot_state hang(struct slot *s, uint64_t now)
{
    if (s->state == SLOT_READY && (s->recovered || !s->must_recover))
        log_err("%s has closed its descriptor and does not leave: killed", s->name);
    else
        log_err("%s does not become %s in time: killed", s->name,
                s->state == SLOT_STARTING ? "READY" : "RECOVERED");
    return outlaw(s, now);
}

static enum slot_state stop(struct slot *s, uint64_t now)
{
    s->wanted = false;
    s->asked = true;
    s->ops->signal(s, SIGTERM);
    s->deadline_ms = now + SLOT_TERM_MS;
    return SLOT_KILLING;
}

static enum slot_state again(struct slot *s, uint64_t now)
{
    s->ops->signal(s, SIGKILL);
    s->deadline_ms = now + SLOT_TERM_MS;
    return SLOT_KILLING;
}

static enum slot_state harder(struct slot *s, uint64_t now)
{
    s->wanted = false;
    return again(s, now);
}

static enum slot_state drain(struct slot *s, uint64_t now)
{
    s->wanted = false;
    s->asked = true;
    s->ops->drain(s, s->drain_s);
    s->deadline_ms = now + (uint64_t)s->drain_s * 1000 + SLOT_GRACE_MS;
    return SLOT_DRAINING;
}

/* Another drain may only make it shorter. */
static enum slot_state hasten(struct slot *s, uint64_t now)
{
    uint64_t before = s->deadline_ms;
    (void)drain(s, now);
    if (before < s->deadline_ms)
        s->deadline_ms = before;
    return SLOT_DRAINING;
}

static enum slot_state overdue(struct slot *s, uint64_t now)
{
    log_warn("%s is not finished at the end of its drain: terminated", s->name);
    return stop(s, now);
}

static enum slot_state forget(struct slot *s, uint64_t now)
{
    (void)now;
    s->wanted = false;
    s->deadline_ms = 0;
    return SLOT_EMPTY;
}

/* The process is leaving anyway; only what is to come after it changes. */
static enum slot_state unwant(struct slot *s, uint64_t now)
{
    (void)now;
    s->wanted = false;
    return s->state;
}

static enum slot_state stay(struct slot *s, uint64_t now)
{
    (void)now;
    return s->state;
}

/* clang-format off */
static handler *const table[SLOT_STATE_COUNT][SLOT_EV_COUNT] = {
    /*                  SPAWN    READY    RECOVERED EXIT   TIMEOUT  STOP    DRAIN   BAD_FRAME */
    [SLOT_EMPTY]    = { spawn,   stay,    stay,     stay,  stay,    stay,   stay,   stay },
    [SLOT_STARTING] = { stay,    ready,   outlaw,   early, hang,    stop,   stop,   outlaw },
    [SLOT_READY]    = { stay,    outlaw,  holds,    late,  hang,    stop,   drain,  outlaw },
    [SLOT_DRAINING] = { stay,    outlaw,  inherits, left,  overdue, stop,   hasten, outlaw },
    [SLOT_KILLING]  = { stay,    stay,    stay,     left,  again,   harder, unwant, stay },
    [SLOT_BACKOFF]  = { respawn, stay,    stay,     stay,  respawn, forget, forget, stay },
};
/* clang-format on */

void slot_init(struct slot *s, const struct slot_ops *ops, const char *name)
{
    *s =
        (struct slot){.ops = ops, .ready_ms_max = SLOT_READY_MS, .recover_ms_max = SLOT_RECOVER_MS};
    snprintf(s->name, sizeof s->name, "%s", name);
}

void slot_event(struct slot *s, enum slot_event e, uint64_t now_ms)
{
    MUST(s->state < SLOT_STATE_COUNT);
    MUST(e < SLOT_EV_COUNT);
    enum slot_state before = s->state;
    enum slot_state next = table[before][e](s, now_ms);
    MUST(next < SLOT_STATE_COUNT);
    if (next == before)
        return;
    s->state = next;
    if (e == SLOT_EV_EXIT || next == SLOT_KILLING)
        log_note("%s %s -> %s event=%s failures=%u%s%s", s->name, state_words[before],
                 state_words[next], event_words[e], s->failures, e == SLOT_EV_EXIT ? " last=" : "",
                 e == SLOT_EV_EXIT ? s->last_exit : "");
    else
        log_dbg("%s %s -> %s event=%s", s->name, state_words[before], state_words[next],
                event_words[e]);
}

bool slot_has_process(const struct slot *s)
{
    return s->state == SLOT_STARTING || s->state == SLOT_READY || s->state == SLOT_DRAINING ||
           s->state == SLOT_KILLING;
}

bool slot_serves(const struct slot *s)
{
    return s->state == SLOT_READY || s->state == SLOT_DRAINING;
}
