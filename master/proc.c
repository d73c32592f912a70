/* proc - see proc.h. */
#include "master/proc.h"

#include "base/log.h"
#include "master/carriers.h"
#include "master/child.h"
#include "master/cluster.h"
#include "master/move/move.h"
#include "master/netd_client.h"
#include "master/peers.h"
#include "master/poison.h"
#include "master/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROC_FRAMES = 64, CLOSED_MS = 2000 };

static struct proc *proc_of(struct slot *s)
{
    return (struct proc *)((char *)s - offsetof(struct proc, slot));
}

static void program_of(const struct proc *p, char *out, size_t cap)
{
    static const char *const programs[PROC_KIND_COUNT] = {[PROC_WORKER] = "mochila-worker",
                                                          [PROC_API] = "mochila-api",
                                                          [PROC_LINK] = "mochila-link",
                                                          [PROC_NETD] = "mochila-netd"};
    const struct options *o = p->master->options;
    const char *const given[PROC_KIND_COUNT] = {[PROC_WORKER] = o->worker, [PROC_API] = o->api};
    if (given[p->kind] != NULL)
        snprintf(out, cap, "%s", given[p->kind]);
    else
        snprintf(out, cap, "%s/%s", p->master->paths.binaries, programs[p->kind]);
}

static int op_spawn(struct slot *s)
{
    struct proc *p = proc_of(s);
    char program[PATHS_BYTES + 32];
    program_of(p, program, sizeof program);
    p->incarnation = master_next_incarnation(p->master);
    p->broken = false;
    p->acknowledged = 0;
    if (p->kind == PROC_WORKER) {
        p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (p->wake_fd < 0)
            return -errno;
        listeners_reopen_worker(&p->master->listeners, p->index);
    }
    int rc = child_spawn(program, p->master->log_fd, &p->pid, &p->control_fd);
    if (rc < 0) {
        if (p->wake_fd >= 0)
            close(p->wake_fd);
        p->wake_fd = -1;
        return rc;
    }
    /* One that gets no START shall not wait for it. */
    p->broken = start_send(p) < 0 || p->broken;
    return 0;
}

static void op_drain(struct slot *s, uint32_t seconds)
{
    struct control_frame f = {.kind = CONTROL_DRAIN, .seconds = seconds};
    proc_send(proc_of(s), &f, NULL, 0);
}

static void op_signal(struct slot *s, int number)
{
    const struct proc *p = proc_of(s);
    MUST(p->pid > 0);
    if (kill(p->pid, number) < 0)
        log_warn("%s pid=%d: kill: %s", s->name, (int)p->pid, strerror(errno));
}

static void op_ready(struct slot *s)
{
    struct proc *p = proc_of(s);
    log_note("%s ready pid=%d after_ms=%llu", s->name, (int)p->pid,
             (unsigned long long)(p->master->now_ms - s->spawned_ms));
    if (p->kind == PROC_WORKER)
        peers_ready(p);
    if (p->kind == PROC_LINK) {
        cluster_link_ready(p->master);
        carriers_link_ready(p->master);
    }
}

static void op_recovered(struct slot *s)
{
    struct proc *p = proc_of(s);
    peers_recovered(p);
    lane_table_tell(p->master, p);
    cluster_changed(p->master);
    carriers_worker_ready(p);
    moves_on_worker(p->master, p);
}

static void close_process(struct proc *p)
{
    if (p->control_fd >= 0)
        close(p->control_fd);
    if (p->wake_fd >= 0)
        close(p->wake_fd);
    p->control_fd = p->wake_fd = -1;
    p->pid = 0;
    outbox_fini(&p->outbox);
}

/*
 * Did what it worked on end it? Not when we wanted it gone, nor when somebody else's SIGKILL or
 * SIGTERM did: a message cannot do that, since its memory has bounds. Our own SIGKILL after a hang
 * counts.
 */
static bool is_crash(const struct proc *p, bool asked)
{
    int status = p->exit_status;
    if (p->slot.state == SLOT_KILLING)
        return !asked;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM;
    return !asked || WEXITSTATUS(status) != 0;
}

static void op_gone(struct slot *s, bool asked)
{
    struct proc *p = proc_of(s);
    if (p->kind == PROC_WORKER) {
        peers_gone(p);
        poison_examine(p, is_crash(p, asked));
    }
    if (p->kind == PROC_LINK)
        cluster_link_gone(p->master);
    if (p->kind == PROC_NETD)
        netd_client_gone(p->master);
    cluster_changed(p->master);
    fanout_gone(p->master, p);
    close_process(p);
}

static void op_waits(struct slot *s, uint64_t delay_ms)
{
    const struct proc *p = proc_of(s);
    if (delay_ms > 0)
        log_warn("%s is started again in %llu ms failures=%u last=%s", s->name,
                 (unsigned long long)delay_ms, s->failures, s->last_exit);
    if (p->kind == PROC_WORKER && delay_ms > LISTENERS_AWAY_MS)
        listeners_close_worker(&p->master->listeners, p->index);
}

static const struct slot_ops ops = {op_spawn,     op_drain, op_signal, op_ready,
                                    op_recovered, op_gone,  op_waits};

struct proc *proc_create(struct master *m, struct generation *g, enum proc_kind kind,
                         uint32_t index)
{
    char name[24];
    struct proc *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    static const char *const singles[PROC_KIND_COUNT] = {
        [PROC_API] = "api", [PROC_LINK] = "link", [PROC_NETD] = "netd"};
    if (singles[kind] != NULL)
        snprintf(name, sizeof name, "%s", singles[kind]);
    else
        snprintf(name, sizeof name, "worker-%u.%llu", index, (unsigned long long)g->number);
    slot_init(&p->slot, &ops, name);
    p->slot.must_recover = kind == PROC_WORKER;
    if (m->options->ready_ms != 0)
        p->slot.ready_ms_max = m->options->ready_ms;
    p->master = m;
    p->generation = g;
    p->kind = kind;
    p->index = index;
    p->control_fd = p->wake_fd = -1;
    MUST(m->proc_count < MASTER_PROCS);
    m->procs[m->proc_count++] = p;
    return p;
}

void proc_free(struct proc **pp)
{
    struct proc *p = *pp;
    if (p == NULL)
        return;
    MUST(!slot_has_process(&p->slot));
    struct master *m = p->master;
    for (unsigned i = 0; i < m->proc_count; i++) {
        if (m->procs[i] == p)
            m->procs[i] = m->procs[--m->proc_count];
    }
    close_process(p);
    free(p);
    *pp = NULL;
}

void proc_event(struct proc *p, enum slot_event e)
{
    slot_event(&p->slot, e, p->master->now_ms);
}

/* An answer to send's failures: a dead one is reaped soon, one that does not read is broken. */
static void judge_send(struct proc *p, int rc)
{
    if (rc == 0 || rc == -EPIPE)
        return;
    log_err("%s: a frame cannot be sent: %s", p->slot.name,
            rc == -ENOBUFS ? "it does not read" : strerror(-rc));
    p->broken = true;
}

void proc_send(struct proc *p, const struct control_frame *f, const int *fds, unsigned fd_count)
{
    if (p->control_fd >= 0)
        judge_send(p, outbox_send(&p->outbox, p->control_fd, f, fds, fd_count));
}

void proc_send_bytes(struct proc *p, struct span bytes)
{
    if (p->control_fd >= 0)
        judge_send(p, outbox_send_bytes(&p->outbox, p->control_fd, bytes, NULL, 0));
}

void proc_writable(struct proc *p)
{
    if (p->control_fd >= 0)
        judge_send(p, outbox_flush(&p->outbox, p->control_fd));
}

void proc_answer_error(struct proc *p, uint64_t id, int status, const char *text)
{
    char body[8192];
    struct text t = text_of(body, sizeof body);
    /* Escaped at six bytes for one, it fits. */
    MUST(strlen(text) * 6 + 16 < sizeof body);
    text_puts(&t, "{\"error\":");
    text_json(&t, span_str(text));
    text_putc(&t, '}');
    struct control_frame f = {.kind = CONTROL_ANSWER,
                              .id = id,
                              .last = true,
                              .status = status,
                              .slot = CONTROL_NO_SLOT,
                              .body = (uint8_t *)body,
                              .body_bytes = t.n};
    proc_send(p, &f, NULL, 0);
}

static int on_ready(struct proc *p, const struct control_frame *f)
{
    uint64_t wanted = p->generation != NULL ? p->generation->number : p->master->current->number;
    if (f->version != CONTROL_VERSION) {
        log_err("%s speaks version %u of the control frames, not %d: are all programs of one "
                "build?",
                p->slot.name, f->version, CONTROL_VERSION);
        return -EBADMSG;
    }
    if (f->pid != (uint32_t)p->pid || f->generation > wanted)
        return -EBADMSG;
    p->acknowledged = f->generation;
    /* The api says READY again for each new configuration. */
    if (p->kind == PROC_API && slot_serves(&p->slot))
        return 0;
    proc_event(p, SLOT_EV_READY);
    return 0;
}

static int on_recovered(struct proc *p, const struct control_frame *f)
{
    log_note("%s recovered messages=%llu ms=%llu damaged=%llu", p->slot.name,
             (unsigned long long)f->messages, (unsigned long long)f->milliseconds,
             (unsigned long long)f->damaged);
    proc_event(p, SLOT_EV_RECOVERED);
    return 0;
}

static int on_drained(struct proc *p, const struct control_frame *f)
{
    log_note("%s drained open=%u", p->slot.name, f->open);
    return 0;
}

static int on_query(struct proc *p, const struct control_frame *f)
{
    verbs_query(p->master, f);
    return 0;
}

static int on_answer(struct proc *p, const struct control_frame *f)
{
    return fanout_answer(p->master, p, f);
}

static int on_link(struct proc *p, const struct control_frame *f)
{
    return cluster_on_link(p->master, f);
}

static int on_lane(struct proc *p, const struct control_frame *f)
{
    if (f->order.op < LANE_OP_SET_DONE)
        return -EBADMSG;
    move_on_lane(p->master, p, &f->order);
    return 0;
}

/* What each kind of child may say; everything else is malformed. netd has frames of its own. */
static int (*const handlers[][CONTROL_KIND_COUNT])(struct proc *, const struct control_frame *) = {
    [PROC_WORKER] = {[CONTROL_READY] = on_ready,
                     [CONTROL_RECOVERED] = on_recovered,
                     [CONTROL_DRAINED] = on_drained,
                     [CONTROL_ANSWER] = on_answer,
                     [CONTROL_LANE] = on_lane},
    [PROC_API] =
        {[CONTROL_READY] = on_ready, [CONTROL_DRAINED] = on_drained, [CONTROL_QUERY] = on_query},
    [PROC_LINK] =
        {[CONTROL_READY] = on_ready, [CONTROL_DRAINED] = on_drained, [CONTROL_LINK] = on_link},
    [PROC_NETD] = {NULL},
};

static int take_frame(struct proc *p)
{
    if (p->kind == PROC_NETD)
        return netd_client_take(p);
    struct control_frame f;
    /* Children have no descriptors to give: one that comes is malformed, and closed. */
    int rc = control_receive(p->control_fd, &f, NULL, NULL);
    if (rc <= 0)
        return rc;
    rc = handlers[p->kind][f.kind] != NULL ? handlers[p->kind][f.kind](p, &f) : -EBADMSG;
    control_free(&f);
    return rc < 0 ? rc : 1;
}

void proc_readable(struct proc *p)
{
    for (unsigned i = 0; i < PROC_FRAMES && p->control_fd >= 0; i++) {
        int rc = take_frame(p);
        if (rc == -EAGAIN)
            return;
        if (rc > 0)
            continue;
        if (rc < 0) {
            log_err("%s: a malformed frame: %s", p->slot.name, strerror(-rc));
            p->broken = true;
        } else {
            /* It is about to leave; one that only closed the descriptor is helped along. */
            uint64_t soon = p->master->now_ms + CLOSED_MS;
            if (p->slot.deadline_ms == 0 || p->slot.deadline_ms > soon)
                p->slot.deadline_ms = soon;
        }
        close(p->control_fd);
        p->control_fd = -1;
        outbox_fini(&p->outbox);
    }
}

void proc_settle(struct proc *p)
{
    if (!p->broken)
        return;
    p->broken = false;
    proc_event(p, SLOT_EV_BAD_FRAME);
}

void proc_reaped(struct proc *p, int wait_status)
{
    /* What it said before it died counts, as far as it is readable. */
    proc_readable(p);
    p->broken = false;
    p->exit_status = wait_status;
    child_describe(wait_status, p->slot.last_exit, sizeof p->slot.last_exit);
    proc_event(p, SLOT_EV_EXIT);
}
