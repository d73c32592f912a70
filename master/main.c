/* mochilad - the master process of a mochila node; see docs/ARCHITECTURE.md. */
#include "base/log.h"
#include "base/text.h"
#include "master/ballast.h"
#include "master/cluster.h"
#include "master/counters.h"
#include "master/generation.h"
#include "master/holds.h"
#include "master/lifecycle.h"
#include "master/loop.h"
#include "master/move/move.h"
#include "master/netd_client.h"
#include "master/probe.h"
#include "master/proc.h"
#include "master/services.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { ERRORS_BYTES = 64 << 10 };

/* Start-up errors are for the person at the terminal: without time and level. */
static int fail(int status, const struct text *errors)
{
    fprintf(stderr, "mochilad: %s%s", errors->p,
            errors->n > 0 && errors->p[errors->n - 1] == '\n' ? "" : "\n");
    return status;
}

static int fail_errno(struct text *errors, const char *what, int rc)
{
    text_fmt(errors, "%s: %s\n", what, strerror(-rc));
    return fail(EX_OSERR, errors);
}

/* A master holds a handful of descriptors per worker and listener; children raise theirs
 * themselves. */
static void raise_limits(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &l) < 0)
            log_warn("descriptors: %s", strerror(errno));
    }
}

/* Connections that a NIC's interrupt brings to a core go to the worker pinned there. */
static void steer_listeners(struct master *m, const struct generation *g)
{
    const struct config *c = g->source->config;
    bool nic = false;
    for (uint32_t i = 0; i < c->lane_count; i++)
        nic = nic || c->lanes[i].nic[0] != '\0';
    for (uint32_t w = 0; nic && w < m->workers; w++)
        m->listeners.cores[w] = g->cores[w];
}

/* Directories, locks, and the boot counter before anything else. */
static int open_state(struct master *m, const struct config *c)
{
    mode_t usual = umask(0077);
    int rc = state_open(m->paths.state_db, &m->state);
    (void)umask(usual);
    if (rc == 0)
        rc = state_boot(m->state, &m->boot);
    if (rc == 0)
        rc = holds_init(m, c);
    return rc;
}

static int open_node(struct master *m, const struct config *c, struct text *errors)
{
    if (paths_init(&m->paths, errors) < 0)
        return fail(EX_OSERR, errors);
    int rc = paths_prepare(&m->paths, c, m->options->allow_volatile_spool, errors);
    if (rc < 0)
        return fail(rc == -EBUSY ? EX_UNAVAILABLE : EX_CANTCREAT, errors);
    m->log_fd = paths_open_log(&m->paths);
    if (m->log_fd < 0)
        return fail_errno(errors, "log", m->log_fd);
    if (m->paths.log[0] != '\0' && isatty(STDERR_FILENO)) /* else nothing would be seen at all */
        fprintf(stderr, "mochilad: the log is %s/mochila.log\n", m->paths.log);
    log_open(m->log_fd, LOG_NOTE, "mochilad");
    rc = open_state(m, c);
    if (rc < 0 && ballast_drop(m->paths.state_db)) {
        state_close(&m->state);
        rc = open_state(m, c);
    }
    if (rc == 0)
        ballast_keep(m->paths.state_db);
    if (rc < 0) {
        text_fmt(errors, "state.db: %s\n", m->state != NULL ? state_error(m->state) : "no memory");
        return fail(EX_IOERR, errors);
    }
    return EX_OK;
}

/* What outlives generations. */
static int start_cluster(struct master *m, struct text *errors)
{
    m->api = proc_create(m, NULL, PROC_API, 0);
    if (m->api == NULL)
        return fail_errno(errors, "api", -ENOMEM);
    int rc = services_init(m);
    if (rc == 0)
        rc = cluster_configure(m);
    if (rc == 0)
        rc = moves_open(m);
    return rc == 0 ? EX_OK : fail_errno(errors, "cluster", rc);
}

static int start_node(struct master *m, struct source **source, struct text *errors)
{
    uint32_t workers = (*source)->config->workers;
    m->workers = workers != 0 ? workers : cores_count();
    MUST(m->workers <= LIMIT_WORKERS);
    listeners_init(&m->listeners, m->workers);
    int rc = counters_init(m);
    if (rc < 0)
        return fail_errno(errors, "counters", rc);
    if (generation_create(m, source, &m->current, errors) < 0)
        return fail(EX_OSERR, errors);
    steer_listeners(m, m->current);
    if (listeners_open(&m->listeners, m->current->source->config, errors) < 0)
        return fail(EX_UNAVAILABLE, errors);
    rc = loop_init(m);
    if (rc < 0)
        return fail_errno(errors, "signals", rc);
    return start_cluster(m, errors);
}

static void run_node(struct master *m)
{
    bool with_api = m->options->api == NULL || strcmp(m->options->api, "none") != 0;
    m->now_ms = m->started_ms = clock_monotonic_ms();
    log_note("start version=%s node=%s boot=%llu workers=%u lanes=%u config=%s", MOCHILA_VERSION,
             m->current->source->config->node, (unsigned long long)m->boot, m->workers,
             m->current->lane_count, m->current->source->name);
    generation_event(m->current, SLOT_EV_SPAWN);
    if (with_api)
        proc_event(m->api, SLOT_EV_SPAWN);
    loop_run(m);
    log_note("stopped");
}

static void close_node(struct master *m)
{
    loop_fini(m);
    moves_close(m);
    services_fini(m);
    cluster_fini(m);
    netd_client_fini(m);
    lane_table_fini(&m->lanes);
    generation_free(&m->leaving);
    generation_free(&m->next);
    generation_free(&m->current);
    proc_free(&m->api);
    listeners_fini(&m->listeners);
    counters_fini(m);
    free(m->holds);
    state_close(&m->state);
    paths_fini(&m->paths);
    if (m->log_fd >= 0)
        close(m->log_fd);
}

static int run(const struct options *o, struct text *errors)
{
    static struct master master = {
        .signal_fd = -1, .log_fd = -1, .paths = {.spool_lock = -1, .run_lock = -1}};
    struct source *source;
    if (source_load(o, &source, errors) < 0)
        return fail(EX_CONFIG, errors);
    if (o->action == OPTIONS_CHECK) {
        printf("%s: no errors\n", source->name);
        source_free(&source);
        return EX_OK;
    }
    master.options = o;
    raise_limits();
    if (o->worker == NULL && probe_ring(errors) < 0) {
        source_free(&source);
        return fail(EX_OSERR, errors);
    }
    int status = open_node(&master, source->config, errors);
    if (status == EX_OK)
        status = start_node(&master, &source, errors);
    if (status == EX_OK)
        run_node(&master);
    source_free(&source);
    close_node(&master);
    return status;
}

int main(int argc, char **argv)
{
    static char space[ERRORS_BYTES];
    struct text errors = text_of(space, sizeof space);
    struct options options;

    log_open(STDERR_FILENO, LOG_NOTE, "mochilad");
    if (options_parse(argc, argv, &options, &errors) < 0)
        return fail(EX_USAGE, &errors);
    if (options.action == OPTIONS_HELP || options.action == OPTIONS_VERSION) {
        fputs(options.action == OPTIONS_HELP ? options_help() : "mochilad " MOCHILA_VERSION "\n",
              stdout);
        return EX_OK;
    }
    return run(&options, &errors);
}
