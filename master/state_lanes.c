/* state_lanes - the lane table of state.db; see state.h. */
#include "master/state_private.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

static int read_lane(sqlite3_stmt *q, struct state_lane *l)
{
    char address[64];
    int64_t id = sqlite3_column_int64(q, 0);
    int64_t shard = sqlite3_column_int64(q, 2);
    int64_t epoch = sqlite3_column_int64(q, 3);
    state_column_text(q, 1, address, sizeof address);
    state_column_text(q, 4, l->pool, sizeof l->pool);
    if (id < 1 || id > UINT32_MAX || shard < 0 || shard >= LIMIT_WORKERS || epoch < 1 ||
        epoch > UINT32_MAX || ip_parse(span_str(address), &l->address) < 0)
        return -EINVAL;
    l->id = (uint32_t)id;
    l->shard = (int32_t)shard;
    l->epoch = (uint32_t)epoch;
    l->retired = sqlite3_column_int(q, 5) != 0;
    int64_t slot = sqlite3_column_int64(q, 7);
    int64_t role = sqlite3_column_int64(q, 8);
    state_column_text(q, 6, l->owner, sizeof l->owner);
    if (slot < -1 || slot >= LIMIT_WORKERS || role < LANE_OWNER || role >= LANE_ROLE_COUNT)
        return -EINVAL;
    l->owner_slot = slot < 0 ? CONTROL_NO_SLOT : (uint32_t)slot;
    l->role = (enum lane_role)role;
    l->move = (uint64_t)sqlite3_column_int64(q, 9);
    return 0;
}

static int read_all(struct state *s, sqlite3_stmt *q, struct state_lane **out, size_t *count)
{
    size_t room = 0;
    int step;
    while ((step = sqlite3_step(q)) == SQLITE_ROW) {
        if (*count == room) {
            room = room == 0 ? 64 : room * 2;
            struct state_lane *more = realloc(*out, room * sizeof *more);
            if (more == NULL)
                return -ENOMEM;
            *out = more;
        }
        if (read_lane(q, &(*out)[*count]) < 0) {
            snprintf(s->error, sizeof s->error, "%s: lane %lld has values out of range", s->path,
                     sqlite3_column_int64(q, 0));
            return -EIO;
        }
        (*count)++;
    }
    return step == SQLITE_DONE ? 0 : state_failed(s, "could not be read");
}

int state_lanes(struct state *s, struct state_lane **out, size_t *count)
{
    sqlite3_stmt *q;
    *out = NULL;
    *count = 0;
    int rc = state_prepare(
        s,
        "SELECT id, address, shard, epoch, pool, retired, owner, owner_slot, role, move FROM lane"
        " ORDER BY id",
        &q);
    if (rc < 0)
        return rc;
    rc = read_all(s, q, out, count);
    sqlite3_finalize(q);
    return rc;
}

static int save_one(struct state *s, struct state_lane *l)
{
    static const char add[] = "INSERT INTO lane(address, shard, epoch, pool, retired, owner, role)"
                              " VALUES(?1, ?2, ?3, ?4, ?5, ?7, ?8)";
    static const char change[] = "UPDATE lane SET shard = ?2, epoch = ?3, pool = ?4, retired = ?5,"
                                 " owner = ?7, role = ?8 WHERE id = ?6 AND address = ?1";
    char address[IP_TEXT];
    sqlite3_stmt *q;
    MUST(l->shard >= 0);
    MUST(l->epoch >= 1);
    int rc = state_prepare(s, l->id == 0 ? add : change, &q);
    if (rc < 0)
        return rc;
    ip_format(&l->address, address);
    (void)sqlite3_bind_text(q, 1, address, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 2, l->shard);
    (void)sqlite3_bind_int64(q, 3, l->epoch);
    (void)sqlite3_bind_text(q, 4, l->pool, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 5, l->retired);
    if (l->id != 0)
        (void)sqlite3_bind_int64(q, 6, l->id);
    (void)sqlite3_bind_text(q, 7, l->owner, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 8, l->role != 0 ? l->role : LANE_OWNER);
    rc = state_finish(s, q, "lanes could not be saved");
    if (rc < 0 || l->id != 0)
        return rc;
    sqlite3_int64 id = sqlite3_last_insert_rowid(s->db);
    if (id > UINT32_MAX)
        return -E2BIG;
    l->id = (uint32_t)id;
    return 0;
}

/* Ends the transaction as `rc` says; returns how that went. */
static int end_transaction(struct state *s, int rc)
{
    if (rc == 0)
        rc = state_exec(s, "COMMIT");
    if (rc < 0) {
        int ignored = state_exec(s, "ROLLBACK");
        if (ignored < 0)
            log_warn("state.db: the rollback failed too");
    }
    return rc;
}

int state_lanes_save(struct state *s, struct state_lane *lanes, size_t count)
{
    int rc = state_exec(s, "BEGIN IMMEDIATE");
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = save_one(s, &lanes[i]);
    return end_transaction(s, rc);
}

static int swap_one(struct state *s, sqlite3_stmt *q, const struct state_swap *w)
{
    MUST(w->epoch >= 1);
    MUST(w->owner[0] != '\0');
    (void)sqlite3_bind_text(q, 1, w->owner, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 2, w->epoch);
    (void)sqlite3_bind_int64(q, 3, w->role);
    (void)sqlite3_bind_int64(q, 4, (int64_t)w->move);
    (void)sqlite3_bind_int64(q, 5, w->owner_slot == CONTROL_NO_SLOT ? -1 : (int)w->owner_slot);
    (void)sqlite3_bind_int64(q, 6, w->id);
    (void)sqlite3_bind_int64(q, 7, w->epoch_before);
    (void)sqlite3_bind_text(q, 8, w->owner_before, -1, SQLITE_TRANSIENT);
    int step = sqlite3_step(q);
    int changed = sqlite3_changes(s->db);
    (void)sqlite3_reset(q);
    if (step != SQLITE_DONE)
        return state_failed(s, "the owner of a lane could not be written");
    if (changed == 1)
        return 0;
    snprintf(s->error, sizeof s->error, "%s: lane %u is not %s's of epoch %u", s->path, w->id,
             w->owner_before, w->epoch_before);
    return -ESTALE;
}

int state_lanes_swap(struct state *s, const struct state_swap *swaps, size_t count)
{
    static const char sql[] = "UPDATE lane SET owner = ?1, epoch = ?2, role = ?3, move = ?4,"
                              " owner_slot = ?5 WHERE id = ?6 AND epoch = ?7 AND owner = ?8";
    sqlite3_stmt *q;
    int rc = state_exec(s, "BEGIN IMMEDIATE");
    if (rc < 0)
        return rc;
    q = NULL;
    rc = state_prepare(s, sql, &q);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = swap_one(s, q, &swaps[i]);
    sqlite3_finalize(q);
    return end_transaction(s, rc);
}
