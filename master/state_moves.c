/* state_moves - see state_moves.h. */
#include "master/state_moves.h"

#include "master/state_private.h"

#include "base/log.h"

#include <errno.h>

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS move(id INTEGER PRIMARY KEY, side INTEGER NOT NULL, pool TEXT NOT "
    "NULL, giver TEXT NOT NULL, taker TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT "
    "NULL, outcome INTEGER NOT NULL, reason TEXT NOT NULL, rate INTEGER NOT NULL, parallel INTEGER "
    "NOT NULL, drain INTEGER NOT NULL, aborting INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS move_lane(move INTEGER NOT NULL, address TEXT NOT NULL, outcome "
    "INTEGER NOT NULL, reason TEXT NOT NULL, pause_us INTEGER NOT NULL, messages INTEGER NOT NULL, "
    "bytes INTEGER NOT NULL, tails INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " PRIMARY KEY(move, address)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS move_number(one INTEGER PRIMARY KEY CHECK(one = 1), last INTEGER "
    "NOT NULL);"
    "INSERT OR IGNORE INTO move_number(one, last) VALUES(1, 0);"
    "DELETE FROM move WHERE outcome <> 0 AND id NOT IN"
    " (SELECT id FROM move ORDER BY started DESC LIMIT 500);"
    "DELETE FROM move_lane WHERE move NOT IN (SELECT id FROM move);";

static int load_lanes(struct state *s, struct room *r, struct move *v)
{
    sqlite3_stmt *q;
    int step = SQLITE_DONE;
    int rc = state_prepare(s,
                           "SELECT address, outcome, reason, pause_us, messages, bytes, tails,"
                           " epoch FROM move_lane WHERE move = ?1",
                           &q);
    if (rc < 0)
        return rc;
    (void)sqlite3_bind_int64(q, 1, (int64_t)v->id);
    while (rc == 0 && (step = sqlite3_step(q)) == SQLITE_ROW) {
        char text[64];
        struct ip address;
        state_column_text(q, 0, text, sizeof text);
        if (ip_parse(span_str(text), &address) < 0)
            continue;
        struct lane_move *l = room_add_lane(r, v, &address);
        if (l == NULL) {
            rc = -ENOMEM;
            break;
        }
        int outcome = sqlite3_column_int(q, 1);
        if (outcome > MOVE_OPEN && outcome <= MOVE_FAILED) {
            l->state = MOVE_OVER;
            l->outcome = (enum move_outcome)outcome;
        }
        state_column_text(q, 2, l->reason, sizeof l->reason);
        l->pause_us = (uint64_t)sqlite3_column_int64(q, 3);
        l->progress.messages_sent = (uint64_t)sqlite3_column_int64(q, 4);
        l->progress.bytes_sent = (uint64_t)sqlite3_column_int64(q, 5);
        l->tails = (uint32_t)sqlite3_column_int(q, 6);
        l->epoch = (uint32_t)sqlite3_column_int64(q, 7);
        l->saved = l->state == MOVE_OVER ? 2 : 1;
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = state_failed(s, "moves could not be read");
    sqlite3_finalize(q);
    return rc;
}

static void row_of(sqlite3_stmt *q, struct move *row)
{
    int outcome = sqlite3_column_int(q, 7);
    *row = (struct move){.id = (uint64_t)sqlite3_column_int64(q, 0),
                         .side = sqlite3_column_int(q, 1) == MOVE_GIVER ? MOVE_GIVER : MOVE_TAKER,
                         .started = sqlite3_column_int64(q, 5),
                         .ended = sqlite3_column_int64(q, 6),
                         .rate = (uint64_t)sqlite3_column_int64(q, 9),
                         .parallel = (uint32_t)sqlite3_column_int(q, 10),
                         .drain = sqlite3_column_int(q, 11) != 0,
                         .aborting = sqlite3_column_int(q, 12) != 0};
    state_column_text(q, 2, row->pool, sizeof row->pool);
    state_column_text(q, 3, row->giver, sizeof row->giver);
    state_column_text(q, 4, row->taker, sizeof row->taker);
    state_column_text(q, 8, row->reason, sizeof row->reason);
    if (outcome > MOVE_OPEN && outcome <= MOVE_FAILED)
        row->outcome = (enum move_outcome)outcome;
    if (row->parallel == 0)
        row->parallel = 1;
}

int state_moves_load(struct state *s, struct room *r)
{
    sqlite3_stmt *q;
    struct move row;
    int step = SQLITE_DONE, rc = state_exec(s, schema);
    if (rc == 0)
        rc = state_prepare(s,
                           "SELECT id, side, pool, giver, taker, started, ended, outcome, reason,"
                           " rate, parallel, drain, aborting FROM (SELECT * FROM move ORDER BY"
                           " outcome <> 0, started DESC LIMIT 128) ORDER BY started",
                           &q);
    if (rc < 0)
        return rc;
    while (rc == 0 && (step = sqlite3_step(q)) == SQLITE_ROW) {
        row_of(q, &row);
        struct move *v = room_add(r, &row);
        rc = v != NULL ? load_lanes(s, r, v) : -ENOMEM;
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = state_failed(s, "moves could not be read");
    sqlite3_finalize(q);
    return rc;
}

static int save_lane(struct state *s, const struct lane_move *l)
{
    char address[IP_TEXT];
    sqlite3_stmt *q;
    int rc = state_prepare(s, "INSERT OR REPLACE INTO move_lane VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
                           &q);
    if (rc < 0)
        return rc;
    ip_format(&l->address, address);
    (void)sqlite3_bind_int64(q, 1, (int64_t)l->move);
    (void)sqlite3_bind_text(q, 2, address, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int(q, 3, l->state == MOVE_OVER ? (int)l->outcome : MOVE_OPEN);
    (void)sqlite3_bind_text(q, 4, l->reason, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 5, (int64_t)l->pause_us);
    (void)sqlite3_bind_int64(q, 6, (int64_t)l->progress.messages_sent);
    (void)sqlite3_bind_int64(q, 7, (int64_t)l->progress.bytes_sent);
    (void)sqlite3_bind_int64(q, 8, l->tails);
    (void)sqlite3_bind_int64(q, 9, l->epoch);
    return state_finish(s, q, "a move could not be saved");
}

static int save_row(struct state *s, const struct move *v)
{
    sqlite3_stmt *q;
    int rc = state_prepare(
        s, "INSERT OR REPLACE INTO move VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)", &q);
    if (rc < 0)
        return rc;
    (void)sqlite3_bind_int64(q, 1, (int64_t)v->id);
    (void)sqlite3_bind_int(q, 2, (int)v->side);
    (void)sqlite3_bind_text(q, 3, v->pool, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(q, 4, v->giver, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(q, 5, v->taker, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 6, v->started);
    (void)sqlite3_bind_int64(q, 7, v->ended);
    (void)sqlite3_bind_int(q, 8, (int)v->outcome);
    (void)sqlite3_bind_text(q, 9, v->reason, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(q, 10, (int64_t)v->rate);
    (void)sqlite3_bind_int(q, 11, (int)v->parallel);
    (void)sqlite3_bind_int(q, 12, v->drain);
    (void)sqlite3_bind_int(q, 13, v->aborting);
    return state_finish(s, q, "a move could not be saved");
}

int state_move_save(struct state *s, const struct move *v)
{
    int rc = state_exec(s, "BEGIN IMMEDIATE");
    if (rc < 0)
        return rc;
    rc = save_row(s, v);
    for (uint32_t i = 0; rc == 0 && i < v->count; i++) {
        unsigned known = v->lanes[i]->state == MOVE_OVER ? 2 : 1;
        if (v->lanes[i]->saved == known)
            continue;
        rc = save_lane(s, v->lanes[i]);
        v->lanes[i]->saved = known;
    }
    if (rc == 0)
        rc = state_exec(s, "COMMIT");
    if (rc < 0) {
        for (uint32_t i = 0; i < v->count; i++)
            v->lanes[i]->saved = 0;
        int ignored = state_exec(s, "ROLLBACK");
        if (ignored < 0)
            log_warn("state.db: the rollback failed too");
    }
    return rc;
}

int state_move_number(struct state *s, uint64_t *out)
{
    sqlite3_stmt *q;
    int rc = state_prepare(s, "UPDATE move_number SET last = last + 1 RETURNING last", &q);
    if (rc < 0)
        return rc;
    int step = sqlite3_step(q);
    if (step == SQLITE_ROW) {
        *out = (uint64_t)sqlite3_column_int64(q, 0);
        step = sqlite3_step(q);
    }
    rc = step == SQLITE_DONE ? 0 : state_failed(s, "a move could not be numbered");
    sqlite3_finalize(q);
    return rc;
}
