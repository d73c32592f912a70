#include "bench/sink_script.h"

#include "base/text.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

enum { SUBJECT_BYTES = 600, FILE_BYTES_MAX = 4 << 20 };

static const char *const stage_names[STAGE_COUNT] = {
    [STAGE_CONNECT] = "connect", [STAGE_EHLO] = "ehlo", [STAGE_MAIL] = "mail",
    [STAGE_RCPT] = "rcpt",       [STAGE_DATA] = "data", [STAGE_DOT] = "dot",
};

int stage_parse(struct span name, enum stage *out)
{
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        if (span_ieq(name, span_str(stage_names[i]))) {
            *out = (enum stage)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *stage_name(enum stage stage)
{
    return stage_names[stage];
}

static struct span trim(struct span s)
{
    while (s.n > 0 && s.p[0] <= ' ') {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && s.p[s.n - 1] <= ' ')
        s.n--;
    return s;
}

static struct span take_word(struct span *s)
{
    *s = trim(*s);
    size_t n = 0;
    while (n < s->n && s->p[n] > ' ')
        n++;
    struct span word = span_of(s->p, n);

    *s = trim(span_of(s->p + n, s->n - n));
    return word;
}

/* `30%` in front of the answer; true when there was one, *bad when it is no share. */
static bool take_share(struct span *s, double *share, bool *bad)
{
    struct span rest = *s;
    struct span word = take_word(&rest);
    uint64_t percent;

    if (word.n < 2 || word.p[word.n - 1] != '%')
        return false;
    *s = rest;
    if (span_to_u64(span_of(word.p, word.n - 1), &percent) < 0 || percent > 100)
        *bad = true;
    else
        *share = (double)percent / 100;
    return true;
}

static bool take_delay(struct span *s, uint32_t *delay_ms, bool *bad)
{
    static const char key[] = "delay=";
    struct span rest = *s;
    struct span word = take_word(&rest);
    uint64_t ms;

    if (!span_ihas_prefix(word, span_str(key)))
        return false;
    *s = rest;
    struct span digits = span_of(word.p + sizeof key - 1, word.n - (sizeof key - 1));
    if (span_to_u64(digits, &ms) < 0 || ms > SCRIPT_DELAY_MS_MAX)
        *bad = true;
    else
        *delay_ms = (uint32_t)ms;
    return true;
}

static bool is_code(struct span s)
{
    return s.n >= 3 && s.p[0] >= '2' && s.p[0] <= '5' && s.p[1] >= '0' && s.p[1] <= '9' &&
           s.p[2] >= '0' && s.p[2] <= '9' && (s.n == 3 || s.p[3] == ' ');
}

/* `550 a\nb` as `550-a CRLF 550 b CRLF`. */
static char *build_reply(struct span s)
{
    char buf[SCRIPT_REPLY_BYTES_MAX];
    struct text t = text_of(buf, sizeof buf);
    struct span code = span_of(s.p, 3);
    struct span left = s.n > 3 ? span_of(s.p + 4, s.n - 4) : span_of(s.p, 0);
    bool more;

    do {
        const uint8_t *mark = left.n > 1 ? memmem(left.p, left.n, "\\n", 2) : NULL;
        more = mark != NULL;
        size_t n = more ? (size_t)(mark - left.p) : left.n;
        text_put(&t, code);
        text_putc(&t, more ? '-' : ' ');
        text_put(&t, span_of(left.p, n));
        text_puts(&t, "\r\n");
        if (more)
            left = span_of(mark + 2, left.n - n - 2);
    } while (more);
    return t.cut ? NULL : strdup(buf);
}

static const char *parse_answer(struct span s, struct script_rule *r)
{
    if (span_ieq(s, span_str("accept"))) {
        r->act = SCRIPT_ACCEPT;
    } else if (span_ieq(s, span_str("close"))) {
        r->act = SCRIPT_CLOSE;
    } else if (is_code(s)) {
        r->act = SCRIPT_REPLY;
        r->reply = build_reply(s);
        if (r->reply == NULL)
            return "the answer is too long";
    } else {
        return "the answer is none of: `NNN text` (200..599), accept, close";
    }
    return NULL;
}

/* NULL, or what is wrong with the line. */
static const char *parse_rule(struct span line, struct script_rule *r)
{
    bool bad = false;
    struct span stage = take_word(&line);
    struct span pattern = take_word(&line);

    *r = (struct script_rule){.share = 1};
    if (stage_parse(stage, &r->stage) < 0)
        return "the stage is none of: connect, ehlo, mail, rcpt, data, dot";
    if (pattern.n == 0 || pattern.n >= SUBJECT_BYTES)
        return "the pattern is missing or too long";
    while (!bad && (take_share(&line, &r->share, &bad) || take_delay(&line, &r->delay_ms, &bad)))
        continue;
    if (bad)
        return "a share is 0%..100%, a delay is delay=MS of at most an hour";
    const char *fault = parse_answer(line, r);
    if (fault != NULL)
        return fault;
    r->pattern = strndup((const char *)pattern.p, pattern.n);
    return r->pattern != NULL ? NULL : "out of memory";
}

static bool has_room(struct sink_script *s)
{
    if (s->count < s->cap)
        return true;
    uint32_t cap = s->cap == 0 ? 16 : s->cap * 2;
    struct script_rule *rules = realloc(s->rules, cap * sizeof *rules);
    if (s->count == SCRIPT_RULE_MAX || rules == NULL)
        return false;
    s->rules = rules;
    s->cap = cap;
    return true;
}

int sink_script_parse(struct sink_script *s, struct span text, const char *file)
{
    unsigned number = 0;

    while (text.n > 0) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        size_t n = end != NULL ? (size_t)(end - text.p) : text.n;
        struct span line = trim(span_of(text.p, n));
        n += end != NULL;
        text = span_of(text.p + n, text.n - n);
        number++;
        if (line.n == 0 || line.p[0] == '#')
            continue;
        if (!has_room(s))
            return -ENOMEM;
        const char *fault = parse_rule(line, &s->rules[s->count]);
        if (fault != NULL) {
            free(s->rules[s->count].reply);
            fprintf(stderr, "%s:%u: \"%.*s\": %s\n", file, number, (int)line.n,
                    (const char *)line.p, fault);
            return -EINVAL;
        }
        s->count++;
    }
    return 0;
}

int sink_script_load(struct sink_script *s, const char *path)
{
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(FILE_BYTES_MAX) : NULL;
    int rc = -ENOMEM;

    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -EINVAL;
    }
    if (text != NULL) {
        size_t n = fread(text, 1, FILE_BYTES_MAX, f);
        rc = ferror(f) ? -EIO : sink_script_parse(s, span_of(text, n), path);
    }
    free(text);
    fclose(f);
    return rc;
}

void sink_script_fini(struct sink_script *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        free(s->rules[i].pattern);
        free(s->rules[i].reply);
    }
    free(s->rules);
    *s = (struct sink_script){0};
}

const struct script_rule *sink_script_find(const struct sink_script *s, enum stage stage,
                                           struct span subject, double chance)
{
    char text[SUBJECT_BYTES];

    if (s->count == 0)
        return NULL;
    snprintf(text, sizeof text, "%.*s", (int)subject.n, (const char *)subject.p);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct script_rule *r = &s->rules[i];
        if (r->stage == stage && chance < r->share && fnmatch(r->pattern, text, FNM_CASEFOLD) == 0)
            return r;
    }
    return NULL;
}
