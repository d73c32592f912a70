/*
 * log - the operational log: one structured line per fact, at the place of decision.
 *
 * Form: `2026-11-21T16:56:24.123Z level area[pid] text key=value ...`, written to one descriptor
 * with one write(2). Mail events (accepted, delivered, ...) do not go here: see worker/events.h.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/check.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_NOTE, LOG_DBG };

/* Until called, lines go to descriptor 2 with level LOG_NOTE and more urgent. */
void log_open(int fd, enum log_level level, const char *area);
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* For a line that another node can make come without end: true at most once in LOG_CALM_MS, with
   how many were kept back since. Begins as zeroes. */
enum { LOG_CALM_MS = 60000 };
struct log_calm {
    uint64_t next_ms, kept_back;
};
bool log_calm_may(struct log_calm *c, uint64_t now_ms, uint64_t *kept_back);

#define log_err(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_note(...) log_line(LOG_NOTE, __VA_ARGS__)
#define log_dbg(...) log_line(LOG_DBG, __VA_ARGS__)

#endif
