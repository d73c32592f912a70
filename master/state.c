/*
 * state - see state.h: opening, boot counter, holds, poison, audit. Lanes are in state_lanes.c.
 *
 * Statements are prepared where they are used: the master changes its state a few times a minute at
 * most.
 */
#include "master/state_private.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { SCHEMA_VERSION = 2, BUSY_MS = 5000, SYNCHRONOUS_FULL = 2 };

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS node(one INTEGER PRIMARY KEY CHECK(one = 1), boot INTEGER NOT "
    "NULL);"
    "INSERT OR IGNORE INTO node(one, boot) VALUES(1, 0);"
    "CREATE TABLE IF NOT EXISTS lane(id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT NOT NULL "
    "UNIQUE,"
    " shard INTEGER NOT NULL, epoch INTEGER NOT NULL, pool TEXT NOT NULL, retired INTEGER NOT "
    "NULL);"
    "CREATE TABLE IF NOT EXISTS hold(kind TEXT NOT NULL, value TEXT NOT NULL, why TEXT NOT NULL,"
    " since INTEGER NOT NULL, PRIMARY KEY(kind, value));"
    "CREATE TABLE IF NOT EXISTS poison(id TEXT PRIMARY KEY, deaths INTEGER NOT NULL,"
    " parked INTEGER NOT NULL, time INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS audit(n INTEGER PRIMARY KEY, time INTEGER NOT NULL, who TEXT NOT "
    "NULL,"
    " what TEXT NOT NULL, result TEXT NOT NULL);";

int state_failed(struct state *s, const char *doing)
{
    snprintf(s->error, sizeof s->error, "%s: %s: %s", s->path, doing, sqlite3_errmsg(s->db));
    log_err("state.db: %s", s->error);
    return sqlite3_errcode(s->db) == SQLITE_FULL ? -ENOSPC : -EIO;
}

const char *state_error(const struct state *s)
{
    return s->error;
}

int state_exec(struct state *s, const char *sql)
{
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return state_failed(s, "could not be written");
    return 0;
}

int state_prepare(struct state *s, const char *sql, sqlite3_stmt **out)
{
    if (sqlite3_prepare_v2(s->db, sql, -1, out, NULL) != SQLITE_OK)
        return state_failed(s, "not as expected");
    return 0;
}

int state_finish(struct state *s, sqlite3_stmt *q, const char *doing)
{
    int rc = sqlite3_step(q);
    int result = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : state_failed(s, doing);
    sqlite3_finalize(q);
    return result;
}

void state_column_text(sqlite3_stmt *q, int column, char *out, size_t cap)
{
    const unsigned char *p = sqlite3_column_text(q, column);
    snprintf(out, cap, "%s", p != NULL ? (const char *)p : "");
}

static int number(struct state *s, const char *sql, int64_t *out)
{
    sqlite3_stmt *q;
    int rc = state_prepare(s, sql, &q);
    if (rc < 0)
        return rc;
    rc = sqlite3_step(q) == SQLITE_ROW ? 0 : state_failed(s, "could not be read");
    if (rc == 0)
        *out = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return rc;
}

/* SQLite answers what it chose, not whether it obeyed: what durability rests on is read back. */
static int set_modes(struct state *s)
{
    int64_t synchronous = 0, wal = 0;
    int rc = state_exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    if (rc == 0)
        rc = number(s, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &wal);
    if (rc == 0)
        rc = number(s, "PRAGMA synchronous", &synchronous);
    if (rc == 0 && (wal != 1 || synchronous != SYNCHRONOUS_FULL)) {
        snprintf(s->error, sizeof s->error,
                 "%s: SQLite cannot keep a write-ahead log here: is it a network file system?",
                 s->path);
        rc = -EIO;
    }
    return rc;
}

/* What nobody will ask for again: the tables stay small without anybody's care. */
static const char prune[] = "DELETE FROM audit WHERE n <= (SELECT max(n) FROM audit) - 100000;"
                            "DELETE FROM poison WHERE NOT parked AND time < unixepoch() - 604800;";

/* What each version added to the one before; a new file passes through all of them. */
static const char *const additions[SCHEMA_VERSION + 1] = {
    [2] = "ALTER TABLE lane ADD COLUMN owner TEXT NOT NULL DEFAULT '';"
          "ALTER TABLE lane ADD COLUMN owner_slot INTEGER NOT NULL DEFAULT -1;"
          "ALTER TABLE lane ADD COLUMN role INTEGER NOT NULL DEFAULT 1;"
          "ALTER TABLE lane ADD COLUMN move INTEGER NOT NULL DEFAULT 0;",
};
static_assert(LANE_OWNER == 1, "the preset of the column role");

static int migrate(struct state *s, int64_t version)
{
    int rc = 0;
    for (int64_t v = version + 1; rc == 0 && v <= SCHEMA_VERSION; v++) {
        if (additions[v] != NULL)
            rc = state_exec(s, additions[v]);
    }
    return rc;
}

static int set_up(struct state *s)
{
    int64_t version = 0;
    int rc = set_modes(s);
    if (rc == 0)
        rc = number(s, "PRAGMA user_version", &version);
    if (rc < 0)
        return rc;
    if (version > SCHEMA_VERSION) {
        snprintf(s->error, sizeof s->error,
                 "%s was written by a newer mochilad (schema %lld, this one knows %d)", s->path,
                 (long long)version, SCHEMA_VERSION);
        return -EILSEQ;
    }
    rc = state_exec(s, "BEGIN IMMEDIATE");
    if (rc == 0)
        rc = state_exec(s, schema);
    if (rc == 0)
        rc = migrate(s, version);
    if (rc == 0)
        rc = state_exec(s, prune);
    if (rc == 0)
        rc = state_exec(s, "PRAGMA user_version=2; COMMIT");
    return rc;
}
static_assert(SCHEMA_VERSION == 2, "set_up writes it");

int state_open(const char *path, struct state **out)
{
    struct state *s = calloc(1, sizeof *s);
    *out = s;
    if (s == NULL)
        return -ENOMEM;
    snprintf(s->path, sizeof s->path, "%s", path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
        return state_failed(s, "could not be opened");
    (void)sqlite3_busy_timeout(s->db, BUSY_MS);
    return set_up(s);
}

void state_close(struct state **s)
{
    if (*s == NULL)
        return;
    if (sqlite3_close((*s)->db) != SQLITE_OK)
        log_warn("state.db: %s", sqlite3_errmsg((*s)->db));
    free(*s);
    *s = NULL;
}

int state_boot(struct state *s, uint64_t *boot)
{
    int64_t n = 0;
    int rc = state_exec(s, "UPDATE node SET boot = boot + 1");
    if (rc == 0)
        rc = number(s, "SELECT boot FROM node", &n);
    if (rc < 0)
        return rc;
    MUST(n >= 1);
    *boot = (uint64_t)n;
    return 0;
}

int state_holds(struct state *s, struct control_hold **out, uint32_t *count)
{
    sqlite3_stmt *q;
    *count = 0;
    *out = calloc(LIMIT_HOLDS, sizeof **out);
    if (*out == NULL)
        return -ENOMEM;
    int rc = state_prepare(
        s, "SELECT kind, value, why, since FROM hold ORDER BY since, kind, value", &q);
    if (rc < 0)
        return rc;
    int step = SQLITE_DONE;
    while (*count < LIMIT_HOLDS && (step = sqlite3_step(q)) == SQLITE_ROW) {
        struct control_hold *h = &(*out)[(*count)++];
        state_column_text(q, 0, h->kind, sizeof h->kind);
        state_column_text(q, 1, h->value, sizeof h->value);
        state_column_text(q, 2, h->why, sizeof h->why);
        h->since = (uint64_t)sqlite3_column_int64(q, 3);
    }
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        rc = state_failed(s, "could not be read");
    sqlite3_finalize(q);
    return rc;
}

static void bind_text(sqlite3_stmt *q, int index, const char *text)
{
    MUST(sqlite3_bind_text(q, index, text, -1, SQLITE_TRANSIENT) == SQLITE_OK);
}

int state_hold_add(struct state *s, const struct control_hold *h)
{
    sqlite3_stmt *q;
    int64_t n = 0;
    MUST(control_hold_kind_ok(h->kind));
    int rc = number(s, "SELECT count(*) FROM hold", &n);
    if (rc == 0 && n >= LIMIT_HOLDS) {
        snprintf(s->error, sizeof s->error, "there are %d holds already, as many as there may be",
                 LIMIT_HOLDS);
        rc = -E2BIG;
    }
    if (rc == 0)
        rc = state_prepare(
            s, "INSERT OR REPLACE INTO hold(kind, value, why, since) VALUES(?,?,?,?)", &q);
    if (rc < 0)
        return rc;
    bind_text(q, 1, h->kind);
    bind_text(q, 2, h->value);
    bind_text(q, 3, h->why);
    (void)sqlite3_bind_int64(q, 4, (int64_t)h->since);
    return state_finish(s, q, "hold");
}

int state_hold_remove(struct state *s, const char *kind, const char *value, uint32_t *removed)
{
    sqlite3_stmt *q;
    *removed = 0;
    int rc = state_prepare(s, "DELETE FROM hold WHERE kind = ? AND value = ?", &q);
    if (rc < 0)
        return rc;
    bind_text(q, 1, kind);
    bind_text(q, 2, value);
    rc = state_finish(s, q, "release");
    if (rc == 0)
        *removed = (uint32_t)sqlite3_changes(s->db);
    return rc;
}

int state_poison_death(struct state *s, struct msg_id id, uint32_t *deaths)
{
    char text[ID_TEXT + 1];
    sqlite3_stmt *q;
    int rc = state_prepare(s,
                           "INSERT INTO poison(id, deaths, parked, time) VALUES(?1, 1, 0, ?2)"
                           " ON CONFLICT(id) DO UPDATE SET deaths = deaths + 1,"
                           " parked = (deaths + 1 >= ?3), time = ?2 RETURNING deaths",
                           &q);
    if (rc < 0)
        return rc;
    id_format(id, text);
    bind_text(q, 1, text);
    (void)sqlite3_bind_int64(q, 2, (int64_t)time(NULL));
    (void)sqlite3_bind_int64(q, 3, STATE_POISON_DEATHS);
    if (sqlite3_step(q) != SQLITE_ROW) {
        rc = state_failed(s, "poison");
        sqlite3_finalize(q);
        return rc;
    }
    *deaths = (uint32_t)sqlite3_column_int64(q, 0);
    /* RETURNING commits with the statement's end. */
    return state_finish(s, q, "poison");
}

int state_poison_parked(struct state *s, struct msg_id **out, uint32_t *count)
{
    sqlite3_stmt *q;
    *count = 0;
    *out = calloc(LIMIT_POISON, sizeof **out);
    if (*out == NULL)
        return -ENOMEM;
    int rc = state_prepare(s, "SELECT id FROM poison WHERE parked ORDER BY time DESC LIMIT ?", &q);
    if (rc < 0)
        return rc;
    (void)sqlite3_bind_int64(q, 1, LIMIT_POISON);
    int step;
    while ((step = sqlite3_step(q)) == SQLITE_ROW) {
        char text[64];
        state_column_text(q, 0, text, sizeof text);
        if (id_parse(span_str(text), &(*out)[*count]) == 0)
            (*count)++;
        else
            log_warn("state.db: poison: \"%s\" is not a message id: ignored", text);
    }
    if (step != SQLITE_DONE)
        rc = state_failed(s, "could not be read");
    sqlite3_finalize(q);
    return rc;
}

int state_poison_forget(struct state *s, struct msg_id id)
{
    char text[ID_TEXT + 1];
    sqlite3_stmt *q;
    int rc = state_prepare(s, "DELETE FROM poison WHERE id = ?", &q);
    if (rc < 0)
        return rc;
    id_format(id, text);
    bind_text(q, 1, text);
    return state_finish(s, q, "poison");
}

int state_audit_add(struct state *s, const char *who, const char *what, const char *result)
{
    sqlite3_stmt *q;
    int rc = state_prepare(s, "INSERT INTO audit(time, who, what, result) VALUES(?,?,?,?)", &q);
    if (rc < 0)
        return rc;
    (void)sqlite3_bind_int64(q, 1, (int64_t)time(NULL));
    bind_text(q, 2, who);
    bind_text(q, 3, what);
    bind_text(q, 4, result);
    return state_finish(s, q, "audit");
}

int state_audit_list(struct state *s, uint32_t limit, struct state_audit **out, uint32_t *count)
{
    sqlite3_stmt *q;
    MUST(limit >= 1);
    *count = 0;
    *out = calloc(limit, sizeof **out);
    if (*out == NULL)
        return -ENOMEM;
    int rc =
        state_prepare(s, "SELECT time, who, what, result FROM audit ORDER BY n DESC LIMIT ?", &q);
    if (rc < 0)
        return rc;
    (void)sqlite3_bind_int64(q, 1, limit);
    int step;
    while ((step = sqlite3_step(q)) == SQLITE_ROW) {
        struct state_audit *a = &(*out)[(*count)++];
        a->unix_s = sqlite3_column_int64(q, 0);
        state_column_text(q, 1, a->who, sizeof a->who);
        state_column_text(q, 2, a->what, sizeof a->what);
        state_column_text(q, 3, a->result, sizeof a->result);
    }
    if (step != SQLITE_DONE)
        rc = state_failed(s, "could not be read");
    sqlite3_finalize(q);
    return rc;
}
