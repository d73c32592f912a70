/*
 * sink_script - rules for the sink's answers: one a line, the first that matches counts.
 *
 *     # stage  pattern        [share] [delay]   answer
 *     rcpt     bob@*                            550 5.1.1 no such user
 *     rcpt     *@slow.test    30%     delay=200 451 4.3.0 later
 *     dot      *@gone.test                      close
 *     connect  127.0.0.7                        421 4.7.0 not you\nsecond line
 *
 * Stages: connect, ehlo, mail, rcpt, data, dot. The pattern (shell glob, case ignored) is matched
 * with the client's address, its EHLO name, the sender, the recipient, and for data and dot with
 * the first recipient accepted. Answers: `NNN text` (\n starts a further line), `accept`, `close`.
 */
#ifndef BENCH_SINK_SCRIPT_H
#define BENCH_SINK_SCRIPT_H

#include "base/span.h"

enum stage {
    STAGE_CONNECT,
    STAGE_EHLO,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_DOT,
    STAGE_COUNT
};
enum script_act { SCRIPT_ACCEPT, SCRIPT_REPLY, SCRIPT_CLOSE };

enum { SCRIPT_RULE_MAX = 10000, SCRIPT_REPLY_BYTES_MAX = 2048, SCRIPT_DELAY_MS_MAX = 3600000 };

struct script_rule {
    enum stage stage;
    enum script_act act;
    double share; /* 0..1 of the matches that this rule takes */
    uint32_t delay_ms;
    char *pattern;
    char *reply; /* whole, with CRLF; NULL unless SCRIPT_REPLY */
};
struct sink_script {
    struct script_rule *rules;
    uint32_t count;
    uint32_t cap;
};

/* The stage of that name, or -EINVAL. */
NODISCARD int stage_parse(struct span name, enum stage *out);
const char *stage_name(enum stage stage);
/* Adds the rules of a text. 0, or -errno after saying on stderr what is wrong in which line. */
NODISCARD int sink_script_parse(struct sink_script *s, struct span text, const char *file);
NODISCARD int sink_script_load(struct sink_script *s, const char *path);
void sink_script_fini(struct sink_script *s);
/* The rule for a subject, or NULL. `chance` is uniform in 0..1 and drawn anew for each call. */
const struct script_rule *sink_script_find(const struct sink_script *s, enum stage stage,
                                           struct span subject, double chance);

#endif
