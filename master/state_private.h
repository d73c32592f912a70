/* state_private - what the files of state share; nobody else includes this. */
#ifndef MASTER_STATE_PRIVATE_H
#define MASTER_STATE_PRIVATE_H

#include "master/state.h"

#include <sqlite3.h>
#include <stdio.h>

struct state {
    sqlite3 *db;
    char path[300];
    char error[400];
};

/* Keeps and logs why the last SQLite call failed; -EIO or -ENOSPC. */
int state_failed(struct state *s, const char *doing);
NODISCARD int state_exec(struct state *s, const char *sql);
NODISCARD int state_prepare(struct state *s, const char *sql, sqlite3_stmt **out);
/* Runs a statement that gives no rows that matter, and frees it. */
NODISCARD int state_finish(struct state *s, sqlite3_stmt *q, const char *doing);
void state_column_text(sqlite3_stmt *q, int column, char *out, size_t cap);

#endif
