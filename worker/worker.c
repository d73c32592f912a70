#include "worker/worker.h"

#include "base/log.h"
#include "worker/admin.h"
#include "worker/lane/route.h"
#include "worker/move/move.h"
#include "worker/rehome.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS_MAX = 1000, SHARD_RETRY_MS = 20, CLOSE_TURNS = 5000, ERRORS_BYTES = 8192 };

/* --- making --- */

static int load_config(struct worker *w, const struct start *s)
{
    struct stat st;
    if (fstat(s->config_fd, &st) != 0)
        return -errno;
    char *text = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE, s->config_fd, 0);
    if (text == MAP_FAILED)
        return -errno;
    char said[ERRORS_BYTES];
    struct text errors = text_of(said, sizeof said);
    int r = config_load(text, (size_t)st.st_size, s->frame.config_name, &errors, &w->config);
    munmap(text, (size_t)st.st_size + 1);
    if (r != 0)
        log_err("the configuration the master passed is not usable: %s", said);
    return r;
}

static int map_stats(struct worker *w, const struct start *s)
{
    void *p =
        mmap(NULL, sizeof(struct stats_page), PROT_READ | PROT_WRITE, MAP_SHARED, s->stats_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    w->stats = p;
    w->stats->version = STATS_VERSION;
    w->stats->pid = (uint64_t)getpid();
    w->stats->generation = w->generation;
#define CLEAR(name) w->stats->name = 0;
    STATS_GAUGES(CLEAR)
#undef CLEAR
    memset(&w->stats->marker, 0, sizeof w->stats->marker);
    memset(w->stats->lanes, 0, sizeof w->stats->lanes);
    return 0;
}

static int make_dns(struct worker *w)
{
    const struct config *c = w->config;
    if (!c->dns.enabled)
        return 0;
    struct dns_settings d = {.servers = c->dns.servers[0] != '\0' ? c->dns.servers : NULL,
                             .query_ms = c->dns.query_ms,
                             .total_ms = c->dns.total_ms,
                             .cache_count_max = c->dns.cache_max,
                             .ttl_min_s = 30,
                             .ttl_max_s = 86400};
    return dns_create(&w->dns, w->io, &w->wheel, &d);
}

static int make_queue(struct worker *w, struct start *s)
{
    struct queue_env env = {.config = w->config,
                            .io = w->io,
                            .wheel = &w->wheel,
                            .dns = w->dns,
                            .stats = w->stats,
                            .events = w->events,
                            .rng = &w->rng};
    int r = queue_init(&w->queue, &env);
    if (r == 0)
        r = route_set_lanes(&w->queue, s->frame.lanes, s->frame.lane_count, w->slot);
    if (r != 0)
        return r;
    w->queue.poison = s->frame.poison;
    w->queue.poison_count = s->frame.poison_count;
    s->frame.poison = NULL;
    s->frame.poison_count = 0;
    queue_set_holds(&w->queue, s->frame.holds, s->frame.hold_count);
    return 0;
}

static int make_exchange(struct worker *w, const struct start *s)
{
    struct exchange_events ev = {
        .on_frame = intake_on_frame, .on_down = intake_on_down, .on_up = intake_on_up};
    struct intake_settings in = {.queue = &w->queue,
                                 .io = w->io,
                                 .wheel = &w->wheel,
                                 .node_id = w->config->node_id,
                                 .boot = s->frame.boot,
                                 .incarnation = s->frame.incarnation,
                                 .slot = w->slot};
    int r = exchange_create(&w->exchange, w->io, &ev);
    if (r != 0)
        return r;
    in.exchange = w->exchange;
    r = intake_create(&w->intake, &in);
    if (r != 0)
        return r;
    exchange_set_context(w->exchange, w->intake);
    r = rehome_create(&w->rehome, &w->queue, w->intake);
    w->queue.take_away = rehome_take;
    w->queue.take_away_ctx = w->rehome;
    return r;
}

static void tell_lane(void *ctx, const struct control_lane_order *o)
{
    struct control_frame f = {.kind = CONTROL_LANE, .order = *o};
    control_link_send(ctx, &f);
}

static int make_move(struct worker *w)
{
    struct move_settings set = {.queue = &w->queue, .slot = w->slot, .tell = tell_lane, .ctx = w};
    return w->config->cluster.name[0] == '\0' ? 0 : move_create(&w->move, &set);
}

static int make_servers(struct worker *w)
{
    struct smtp_servers_settings set = {.config = w->config,
                                        .io = w->io,
                                        .wheel = &w->wheel,
                                        .queue = &w->queue,
                                        .intake = w->intake,
                                        .dns = w->dns,
                                        .events = w->events,
                                        .stats = w->stats,
                                        .rng = &w->rng};
    return smtp_servers_create(&w->servers, &set);
}

static void take_start(struct worker *w, const struct start *s)
{
    w->slot = s->frame.slot;
    w->generation = s->frame.generation;
    w->incarnation = s->frame.incarnation;
    w->shard_want = s->frame.shard_count;
    memcpy(w->shards, s->frame.shards, s->frame.shard_count * sizeof *w->shards);
    w->listener_count = s->listener_fd_count;
    memcpy(w->listener_fds, s->listener_fds, s->listener_fd_count * sizeof *w->listener_fds);
    memcpy(w->listener_index, s->frame.listeners,
           s->frame.listener_count * sizeof *w->listener_index);
    rng_seed(&w->rng, rng_entropy());
}

static void on_shard_timer(struct timer *t);
static void on_drain_timer(struct timer *t);

int worker_create(struct worker *w, struct start *s)
{
    take_start(w, s);
    w->shard_timer.on_due = on_shard_timer;
    w->drain_timer.on_due = on_drain_timer;
    wheel_init(&w->wheel, io_now_ns(w->io) / 1000000);
    int r = map_stats(w, s);
    if (r == 0)
        r = events_create(&w->events, s->events_fd);
    if (r == 0)
        r = make_dns(w);
    if (r == 0)
        r = make_queue(w, s);
    if (r == 0)
        r = make_exchange(w, s);
    if (r == 0)
        r = make_move(w);
    if (r == 0)
        r = make_servers(w);
    if (r == 0)
        r = admin_create(&w->admin, w);
    if (r == 0)
        r = control_link_start(w);
    return r;
}

int worker_config(struct worker *w, const struct start *s)
{
    w->generation = s->frame.generation;
    return load_config(w, s);
}

/* --- shards --- */

static int open_shard(struct worker *w, uint32_t i)
{
    char dir[sizeof w->config->spool + 32];
    snprintf(dir, sizeof dir, "%s/shard-%u", w->config->spool, w->shards[i]);
    struct shard *s;
    int r = shard_open(&s, &w->queue, dir, w->shards[i]);
    if (r == -EWOULDBLOCK)
        return r;
    if (r != 0) {
        log_err("%s cannot be opened: %s", dir, strerror(-r));
        return r;
    }
    const struct spool_facts *f = spool_facts(s->spool);
    w->open[i] = true;
    w->recovery_ms += f->recovery_ms;
    struct spool_usage u;
    spool_usage(s->spool, &u);
    log_note("shard %u: recovered %llu recipients from %llu segments in %llu ms, %llu damaged; "
             "commits: %s",
             w->shards[i], (unsigned long long)s->recovered,
             (unsigned long long)f->recovered_segments, (unsigned long long)f->recovery_ms,
             (unsigned long long)(f->damaged_ranges + s->damaged),
             u.direct ? "O_DIRECT" : "page cache, the file system refuses O_DIRECT");
    return 0;
}

static void tell_recovered(struct worker *w)
{
    struct control_frame f = {.kind = CONTROL_RECOVERED,
                              .messages = w->queue.store.msgs.used,
                              .milliseconds = w->recovery_ms,
                              .damaged = w->stats->damaged};
    w->told_recovered = true;
    w->stats->recovery_ms = w->recovery_ms;
    if (w->phase == WORKER_STARTING)
        w->phase = WORKER_SERVING;
    control_link_send(w, &f);
    if (w->move != NULL)
        move_recovered(w->move);
    intake_retry(w->intake);
}

/* Opens what can be opened; a shard whose lock another process still holds is tried again. */
static void open_shards(struct worker *w)
{
    bool all = true;
    for (uint32_t i = 0; i < w->shard_want; i++) {
        if (w->open[i])
            continue;
        int r = open_shard(w, i);
        if (r != 0 && r != -EWOULDBLOCK)
            exit(1); /* the master restarts us with growing delays and shows this line's text */
        all = all && r == 0;
    }
    if (all)
        tell_recovered(w);
    else
        timer_set(&w->wheel, &w->shard_timer, SHARD_RETRY_MS);
}

static void on_shard_timer(struct timer *t)
{
    open_shards((struct worker *)((char *)t - offsetof(struct worker, shard_timer)));
}

/* --- draining --- */

static void on_drain_timer(struct timer *t)
{
    struct worker *w = (struct worker *)((char *)t - offsetof(struct worker, drain_timer));
    log_warn("the drain limit has passed: %u dialogs and %u deliveries are cut",
             smtp_servers_open(w->servers), deliver_busy(w->queue.deliver));
    w->phase = WORKER_STOPPED;
}

void worker_drain(struct worker *w, uint32_t seconds)
{
    if (w->phase == WORKER_STOPPED)
        return;
    timer_set(&w->wheel, &w->drain_timer, 1000ull * seconds);
    if (w->phase == WORKER_DRAINING)
        return;
    w->phase = WORKER_DRAINING;
    timer_stop(&w->wheel, &w->shard_timer);
    smtp_servers_drain(w->servers);
    /* Ours are copies as long as the master lives; when it died they are the last, and clients must
       not be steered to sockets at which nobody accepts any more. */
    for (uint32_t i = 0; i < w->listener_count; i++)
        close(w->listener_fds[i]);
    w->listener_count = 0;
    w->queue.draining = true;
    if (w->move != NULL)
        move_drain(w->move);
    deliver_drain(w->queue.deliver);
}

static bool quiet(const struct worker *w)
{
    if (smtp_servers_open(w->servers) > 0 || deliver_busy(w->queue.deliver) > 0 ||
        intake_open_count(w->intake) > 0 || rehome_open_count(w->rehome) > 0 ||
        (w->move != NULL && move_open_count(w->move) > 0))
        return false;
    for (uint32_t i = 0; i < w->queue.shard_count; i++)
        if (!shard_idle(w->queue.shards[i]))
            return false;
    return true;
}

/* --- the loop --- */

static void publish(struct worker *w)
{
    struct stats_page *p = w->stats;
    if (p->pid != (uint64_t)getpid())
        return; /* the page is our successor's since its start; only counters are still added to */
    uint64_t total = 0, live = 0, commits = 0, bytes = 0, health = 0, room = UINT64_MAX;
    for (uint32_t i = 0; i < w->queue.shard_count; i++) {
        struct spool_usage u;
        spool_usage(w->queue.shards[i]->spool, &u);
        total += u.total_bytes;
        live += u.live_bytes;
        commits += u.commits;
        bytes += u.commit_bytes;
        if (u.disk_free_bytes < room)
            room = u.disk_free_bytes;
        enum spool_health h = spool_health(w->queue.shards[i]->spool);
        if ((uint64_t)h > health)
            health = (uint64_t)h;
    }
    p->spool_total_bytes = total;
    p->spool_live_bytes = live;
    p->spool_free_bytes = room;
    p->spool_health = health;
    p->commits = commits;
    p->commit_bytes = bytes;
    p->body_bytes = content_total();
    p->open_in = smtp_servers_open(w->servers);
    p->sessions_data = smtp_servers_in_data(w->servers);
    p->open_out = deliver_open(w->queue.deliver);
    p->turns = io_counts(w->io)->turns;
    p->events_dropped = events_dropped(w->events);
    p->heartbeat_ns = io_now_ns(w->io);
}

static void turn(struct worker *w, uint64_t *next_publish_ms)
{
    uint64_t now_ms = io_now_ns(w->io) / 1000000;
    uint64_t wait_ms = wheel_next_ms(&w->wheel, WAIT_MS_MAX);
    wait_ms = queue_next_ms(&w->queue, wait_ms);
    if (w->move != NULL)
        wait_ms = move_next_ms(w->move, wait_ms);
    if (admin_turn(w->admin) || !exchange_sleep(w->exchange))
        wait_ms = 0;
    io_turn(w->io, wait_ms * 1000000);
    exchange_awake(w->exchange);
    now_ms = io_now_ns(w->io) / 1000000;
    wheel_advance(&w->wheel, now_ms);
    exchange_drain(w->exchange);
    queue_turn(&w->queue);
    if (w->move != NULL)
        move_turn(w->move);
    for (uint32_t i = 0; i < w->queue.shard_count; i++)
        shard_turn(w->queue.shards[i]);
    exchange_flush(w->exchange);
    events_flush(w->events, wait_ms > 0 && now_ms >= *next_publish_ms);
    if (now_ms >= *next_publish_ms) {
        *next_publish_ms = now_ms + 100;
        publish(w);
    }
}

static int serve(struct worker *w)
{
    for (uint32_t i = 0; i < w->listener_count; i++) {
        int r = smtp_servers_listen(w->servers, w->listener_index[i], w->listener_fds[i]);
        if (r != 0) {
            log_err("listener %u does not accept: %s", w->listener_index[i], strerror(-r));
            return r;
        }
    }
    return 0;
}

int worker_run(struct worker *w)
{
    struct control_frame ready = {.kind = CONTROL_READY,
                                  .pid = (uint32_t)getpid(),
                                  .generation = w->generation,
                                  .version = CONTROL_VERSION};
    control_link_send(w, &ready);
    open_shards(w);
    if (serve(w) != 0)
        return 1;
    uint64_t next_publish_ms = 0;
    while (w->phase != WORKER_STOPPED) {
        turn(w, &next_publish_ms);
        if (w->phase == WORKER_DRAINING && quiet(w))
            w->phase = WORKER_STOPPED;
    }
    for (int i = 0; i < CLOSE_TURNS && !quiet(w); i++) {
        bool idle = true;
        for (uint32_t k = 0; k < w->queue.shard_count; k++)
            idle = idle && shard_idle(w->queue.shards[k]);
        if (idle)
            break;
        turn(w, &next_publish_ms);
    }
    exchange_leave(w->exchange);
    struct control_frame drained = {.kind = CONTROL_DRAINED,
                                    .open = deliver_busy(w->queue.deliver)};
    control_link_send(w, &drained);
    events_flush(w->events, true);
    return 0;
}

void worker_destroy(struct worker *w)
{
    move_destroy(&w->move);
    for (uint32_t i = 0; i < w->queue.shard_count; i++)
        shard_close(&w->queue.shards[i]);
    w->queue.shard_count = 0;
    admin_destroy(&w->admin);
    smtp_servers_destroy(&w->servers);
    rehome_destroy(&w->rehome);
    intake_destroy(&w->intake);
    exchange_destroy(&w->exchange);
    queue_fini(&w->queue);
    dns_destroy(&w->dns);
    events_destroy(&w->events);
    io_destroy(&w->io);
    config_free(&w->config);
}
