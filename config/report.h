/*
 * report - the errors of one configuration, each one line: file:line: key: what is wrong.
 *
 * Counts on after CONFIG_ERRORS_MAX and says once that there are more. Text from the file is quoted
 * and cut, so that no file can garble a terminal or a log.
 */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H

#include "base/check.h"

struct text;
struct node;

struct report {
    struct text *out;
    const char *file;
    uint32_t count;
};

/* An error at a node of the tree: its line and path are put before the text. */
void report_at(struct report *r, const struct node *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* An error of the file: line 0 = the whole file. */
void report_line(struct report *r, uint32_t line, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* An error of an override, quoted as it was given. */
void report_set(struct report *r, const char *assignment, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* True when no further error would be shown: who finds errors in a loop may stop. */
bool report_full(const struct report *r);

/* What stands at a node, quoted and cut: `"abc"`, `a list`, `a mapping`, `nothing`. */
enum { REPORT_FOUND_BYTES = 128 };
const char *report_found(const struct node *at, char out[REPORT_FOUND_BYTES]);

#endif
