/* ctl_move_support - a move as the node tells it, and what its picture must have. */
#ifndef TESTS_UNIT_CTL_MOVE_SUPPORT_H
#define TESTS_UNIT_CTL_MOVE_SUPPORT_H

#include "base/check.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LANE(n, state, step) \
    "{\"lane\":\"192.0.2." n "\",\"state\":\"" state "\",\"step\":" step "}"
#define MOVE(state, done, more)                                                                  \
    "{\"id\":\"a-17\",\"pool\":\"x\",\"from\":\"a\",\"to\":\"b\",\"state\":\"" state "\","       \
    "\"started\":1000,\"ended\":1010,\"lanes_total\":3,\"lanes_done\":" done                     \
    ",\"messages_total\":1200,\"messages_sent\":1000,\"bytes_total\":2097152,"                   \
    "\"bytes_sent\":1048576,\"rate_bytes_per_s\":524288,\"eta_s\":2," more                       \
    "\"pause_us\":{\"p50\":3100,\"p99\":14200,\"max\":1500000},\"tails\":2,\"owed\":1,"          \
    "\"in_doubt\":4,\"lanes\":[" LANE("1", "copying", "3") "," LANE("2", "done", "11") "," LANE( \
        "3", "preparing", "1") "]}"

static inline json_t *json_of(const char *text)
{
    json_error_t where;
    json_t *v = json_loads(text, 0, &where);
    if (v == NULL)
        fail_msg("%s: %s", where.text, text);
    return v;
}

static inline void must_have(char *out, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(out, words[i]) == NULL)
            fail_msg("no \"%s\" in:\n%s", words[i], out);
    }
    free(out);
}
#define MUST_HAVE(out, ...)                            \
    must_have(out, (const char *const[]){__VA_ARGS__}, \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#endif
