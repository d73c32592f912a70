/* admin_impl - shared by admin*.c only. */
#ifndef WORKER_ADMIN_IMPL_H
#define WORKER_ADMIN_IMPL_H

#include "base/table.h"
#include "worker/admin.h"
#include "worker/worker.h"

#include <jansson.h>

enum {
    ADMIN_SLICE = 20000,
    ADMIN_ROWS_PRESET = 100,
    ADMIN_ROWS_MAX = 10000,
    ADMIN_GROUPS_MAX = 100000
};

/* Which entries are meant. */
struct filter {
    bool any_lane, any_tenant, any_site, any_domain, any_state, any_reason, any_id;
    uint16_t lane, tenant;
    uint32_t domain;
    char site[512];
    uint8_t state, reason;
    struct msg_id id;
    bool nothing; /* names something that does not exist here */
    bool copies;  /* also what other nodes own and copy to this one */
};

enum group_by { BY_SITE, BY_LANE, BY_TENANT, BY_DOMAIN, BY_REASON, BY_MESSAGE };

struct group {
    uint32_t key;
    uint64_t by_state[ENTRY_STATE_COUNT];
    uint64_t by_reason[REASON_COUNT];
    uint32_t oldest_s, next_due_s;
};

/* One question under way. */
struct task {
    struct task *next;
    struct admin *admin;
    uint64_t id;                 /* of the query */
    char verb[24];
    struct filter filter;
    enum group_by by;
    uint32_t limit;
    bool preview, want_headers, want_body;
    uint32_t cursor;             /* next entry of the sweep */
    bool reading;                /* waits for the disk */
    uint64_t matched, changed;
    struct group *groups;
    uint32_t group_count, group_room;
    struct table group_by_key;
    uint32_t *sample;            /* entries to be shown */
    struct msg_id *sample_ids;
    uint32_t sample_count, sample_at;
    json_t *rows;
    struct spool_read read;
    struct record_place place;
    void (*step)(struct task *t);  /* a slice of work; ends by task_answer */
};

struct admin {
    struct worker *worker;
    struct task *tasks;
};

/* admin.c */
/* takes body; t is freed at the end of the turn */
void task_answer(struct task *t, int status, json_t *body);
void task_fail(struct task *t, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
struct queue *task_queue(const struct task *t);

/* admin_filter.c */
/* Fills t->filter from the arguments; false: answered with an error. */
bool filter_read(struct task *t, const struct control_frame *f);
bool filter_matches(const struct queue *q, const struct filter *f, const struct qentry *e);
uint32_t entry_site(const struct queue *q, const struct qentry *e);
/* Why the entry does not move right now. */
enum reason entry_why(const struct queue *q, const struct qentry *e);
/* Why nothing starts in a lane that does not run. */
enum reason lane_why(const struct lane *l);

/* admin_queue.c: queue, delete, retry */
void admin_queue_step(struct task *t);
void admin_change_step(struct task *t);
json_t *message_row(struct queue *q, const struct qentry *e, const struct enq *enq);
/* admin_show.c: show, why, ledger, sites, lanes */
void admin_show_step(struct task *t);
void admin_why(struct task *t, const char *what);
void admin_ledger(struct task *t);
void admin_flows(struct task *t);

#endif
