/* lifecycle - see lifecycle.h. */
#include "master/lifecycle.h"

#include "base/log.h"
#include "base/text.h"
#include "master/cluster.h"
#include "master/generation.h"
#include "master/notify.h"
#include "master/proc.h"
#include "master/services.h"
#include "master/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static int refuse(struct text *errors, const char *why)
{
    text_puts(errors, why);
    return -EBUSY;
}

static int check_changes(const struct master *m, const struct config *next, struct text *errors)
{
    char names[512];
    struct text keys = text_of(names, sizeof names);
    if (config_needs_restart(m->current->source->config, next, &keys) == 0)
        return 0;
    text_fmt(errors, "a reload cannot change %s: stop mochilad and start it again\n", names);
    return -EINVAL;
}

/* Logs that were moved away since are made anew; the old workers finish in the old ones. */
static void reopen_log(struct master *m)
{
    int fd = paths_open_log(&m->paths);
    if (fd < 0) {
        log_err("mochila.log cannot be opened again: %s", strerror(-fd));
        return;
    }
    log_open(fd, LOG_NOTE, "mochilad");
    close(m->log_fd);
    m->log_fd = fd;
}

/* The new workers wait for the shards until the old ones are gone. */
static void allow_for_drain(struct generation *g)
{
    uint32_t more = g->source->config->smtp.drain_s * 1000 + SLOT_GRACE_MS + 2 * SLOT_TERM_MS;
    for (uint32_t w = 0; w < g->workers; w++)
        g->procs[w]->slot.recover_ms_max += more;
}

int lifecycle_reload(struct master *m, struct text *errors)
{
    struct source *source;
    if (m->mode == MODE_STOPPING)
        return refuse(errors, "mochilad is stopping\n");
    if (m->next != NULL)
        return refuse(errors, "a reload is under way already\n");
    if (m->leaving != NULL)
        return refuse(errors, "the workers before the last reload are still finishing: try again "
                              "when mochila status shows none of them\n");
    int rc = source_load(m->options, &source, errors);
    if (rc < 0)
        return rc;
    rc = check_changes(m, source->config, errors);
    if (rc < 0) {
        source_free(&source);
        return rc;
    }
    rc = listeners_open(&m->listeners, source->config, errors);
    if (rc < 0) {
        source_free(&source);
        return rc;
    }
    rc = generation_create(m, &source, &m->next, errors);
    if (rc < 0) {
        listeners_keep(&m->listeners, m->current->source->config);
        return rc;
    }
    m->reload_failed = false;
    reopen_log(m);
    allow_for_drain(m->next);
    log_note("reload generation=%llu config=%s", (unsigned long long)m->next->number,
             m->next->source->name);
    generation_event(m->next, SLOT_EV_SPAWN);
    return 0;
}

void lifecycle_drain(struct master *m, uint32_t seconds)
{
    if (m->mode == MODE_STOPPING)
        return;
    m->mode = MODE_DRAINED;
    log_note("drain seconds=%u: workers finish and leave; a reload brings new ones", seconds);
    generation_drain(m->current, seconds);
    if (m->leaving != NULL)
        generation_drain(m->leaving, seconds);
}

static void kill_all(struct master *m)
{
    /* The first STOP is SIGTERM, the next SIGKILL: whatever state it is in, it ends now. */
    for (int i = 0; i < 2; i++) {
        for (unsigned p = 0; p < m->proc_count; p++)
            proc_event(m->procs[p], SLOT_EV_STOP);
    }
}

void lifecycle_stop(struct master *m)
{
    m->stop_signals++;
    if (m->stop_signals > 1) {
        log_warn("stop at once");
        kill_all(m);
        return;
    }
    uint32_t seconds = m->current->source->config->smtp.drain_s;
    m->mode = MODE_STOPPING;
    log_note("stop: workers have %u s to finish", seconds);
    notify_manager("STOPPING=1");
    if (m->next != NULL)
        generation_event(m->next, SLOT_EV_STOP);
    generation_drain(m->current, seconds);
    if (m->leaving != NULL)
        generation_drain(m->leaving, seconds);
}

/* The first of the new workers that did not make it, or NULL. */
static const struct proc *failed_one(const struct generation *g)
{
    for (uint32_t w = 0; w < g->workers; w++) {
        enum slot_state s = g->procs[w]->slot.state;
        if (s != SLOT_STARTING && s != SLOT_READY)
            return g->procs[w];
    }
    return NULL;
}

static void give_up(struct master *m, const struct proc *p)
{
    const char *why = p->slot.last_exit;
    m->reload_failed = true;
    snprintf(m->reload_text, sizeof m->reload_text,
             "the new workers did not get ready: %s: %s; the reason is in the log. The old ones go "
             "on with the old configuration",
             p->slot.name, why[0] != '\0' ? why : "not READY in time, or a malformed frame");
    log_err("reload failed: %s", m->reload_text);
    generation_event(m->next, SLOT_EV_STOP);
    listeners_keep(&m->listeners, m->current->source->config);
    verbs_reload_done(m, 500);
}

/* The parts that link and netd read; equal values have equal bytes. */
static bool cluster_differs(const struct config *a, const struct config *b)
{
    return memcmp(&a->cluster, &b->cluster, sizeof a->cluster) != 0;
}

static void promote(struct master *m)
{
    MUST(m->leaving == NULL);
    m->leaving = m->current;
    m->current = m->next;
    m->next = NULL;
    m->mode = MODE_RUNNING;
    if (cluster_differs(m->leaving->source->config, m->current->source->config))
        m->cluster_since = m->current->number;
    if (cluster_configure(m) < 0)
        log_err("no memory for the nodes of the cluster: what was configured before is known");
    lane_table_configured(m);
    generation_drain(m->leaving, m->current->source->config->smtp.drain_s);
    listeners_keep(&m->listeners, m->current->source->config);
    if (slot_serves(&m->api->slot) && start_send(m->api) < 0)
        m->api->broken = true;
    snprintf(m->reload_text, sizeof m->reload_text, "generation %llu serves with %s",
             (unsigned long long)m->current->number, m->current->source->name);
    log_note("reload: %s; the workers of generation %llu finish", m->reload_text,
             (unsigned long long)m->leaving->number);
    verbs_reload_done(m, 200);
}

static void step_next(struct master *m)
{
    if (m->next == NULL)
        return;
    bool over = m->reload_failed || m->mode == MODE_STOPPING;
    const struct proc *failed = over ? NULL : failed_one(m->next);
    if (failed != NULL)
        give_up(m, failed);
    else if (!over && generation_all_ready(m->next))
        promote(m);
    if (m->next != NULL && generation_is_empty(m->next))
        generation_free(&m->next);
}

static bool step_stop(struct master *m)
{
    if (m->mode != MODE_STOPPING)
        return true;
    bool workers_left = !generation_is_empty(m->current) || m->next != NULL || m->leaving != NULL;
    if (workers_left)
        return true;
    bool services_left = !services_stop(m);
    if (m->api->slot.state != SLOT_EMPTY && m->api->slot.state != SLOT_KILLING)
        proc_event(m->api, SLOT_EV_STOP);
    return services_left || m->api->slot.state != SLOT_EMPTY;
}

bool lifecycle_step(struct master *m)
{
    for (unsigned i = 0; i < m->proc_count; i++)
        proc_settle(m->procs[i]);
    step_next(m);
    services_step(m);
    if (m->leaving != NULL && generation_is_empty(m->leaving)) {
        log_note("generation %llu has left", (unsigned long long)m->leaving->number);
        generation_free(&m->leaving);
    }
    if (!m->notified_ready && m->mode == MODE_RUNNING && generation_all_ready(m->current)) {
        m->notified_ready = true;
        notify_manager("READY=1");
    }
    return step_stop(m);
}
