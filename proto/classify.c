/*
 * classify - see classify.h.
 *
 * Three tables, read in this order: the text says what kind of refusal it is; kind, code and stage
 * give a status where the reply has none; stage, code, status and kind give the verdict. First
 * match wins in each. New knowledge is a row, not code.
 */
#include "proto/classify.h"

#include "base/text.h"

#include <assert.h>

/* ---- what the text says ---- */

enum kind {
    KIND_NONE,
    KIND_BLOCKED, /* the sending address or network is on a list or has a bad name */
    KIND_AUTH,    /* SPF, DKIM, DMARC, reverse DNS, relaying: policy about who sends */
    KIND_GREYLISTED,
    KIND_RATE,
    KIND_INACTIVE,
    KIND_FULL,
    KIND_NO_USER,
    KIND_CONTENT,
    KIND_FINAL, /* says itself that trying again is useless */
    KIND_LATER  /* says itself that it will pass */
};

/*
 * Letters match in any case; '*' skips at most GAP_MAX letters; '_' is the edge of a word. Specific
 * kinds come first: many refusals end with "try again".
 */
static const struct {
    const char *pattern;
    enum kind kind;
} texts[] = {
    {"spamhaus", KIND_BLOCKED},
    {"_zen_", KIND_BLOCKED},
    {"_sbl_", KIND_BLOCKED},
    {"_xbl_", KIND_BLOCKED},
    {"_pbl_", KIND_BLOCKED},
    {"dnsbl", KIND_BLOCKED},
    {"barracudacentral", KIND_BLOCKED},
    {"spamcop", KIND_BLOCKED},
    {"_sorbs_", KIND_BLOCKED},
    {"cloudmark", KIND_BLOCKED},
    {"ipcheck.proofpoint", KIND_BLOCKED},
    {"invaluement", KIND_BLOCKED},
    {"abusix", KIND_BLOCKED},
    {"uceprotect", KIND_BLOCKED},
    {"mailspike", KIND_BLOCKED},
    {"dmarc", KIND_AUTH},
    {"unauthenticated", KIND_AUTH},
    {"required authentication level", KIND_AUTH},
    {"_spf_", KIND_AUTH},
    {"_dkim_", KIND_AUTH},
    {"ptr record", KIND_AUTH},
    {"reverse dns", KIND_AUTH},
    {"_rdns_", KIND_AUTH},
    {"cannot find your*hostname", KIND_AUTH},
    {"_helo_*reject", KIND_AUTH},
    {"_helo_*invalid", KIND_AUTH},
    {"greylist", KIND_GREYLISTED},
    {"graylist", KIND_GREYLISTED},
    {"grey list", KIND_GREYLISTED},
    {"gray list", KIND_GREYLISTED},
    {"grey-list", KIND_GREYLISTED},
    {"gray-list", KIND_GREYLISTED},
    {"try again in*second", KIND_GREYLISTED},
    {"try again in*_sec_", KIND_GREYLISTED},
    {"try again in*minute", KIND_GREYLISTED},
    {"try again in*_min_", KIND_GREYLISTED},
    {"retry later*first", KIND_GREYLISTED},
    {"ratelimit", KIND_RATE},
    {"_rate_", KIND_RATE},
    {"_rates_", KIND_RATE},
    {"too many connections", KIND_RATE},
    {"too many messages", KIND_RATE},
    {"too fast", KIND_RATE},
    {"too quickly", KIND_RATE},
    {"too frequent", KIND_RATE},
    {"too much mail", KIND_RATE},
    {"throttl", KIND_RATE},
    {"slow down", KIND_RATE},
    {"unusual traffic", KIND_RATE},
    {"unusual volume", KIND_RATE},
    {"frequency limited", KIND_RATE},
    {"temporarily deferred", KIND_RATE},
    {"server busy", KIND_RATE},
    {"exceeded the maximum number of messages", KIND_RATE},
    {"exceeded the maximum number of connections", KIND_RATE},
    {"relay denied", KIND_AUTH},
    {"relaying denied", KIND_AUTH},
    {"relay*not permitted", KIND_AUTH},
    {"relay*not allowed", KIND_AUTH},
    {"relay*prohibited", KIND_AUTH},
    {"not permitted to relay", KIND_AUTH},
    {"unable to relay", KIND_AUTH},
    {"relay access denied", KIND_AUTH},
    {"account*disabled", KIND_INACTIVE},
    {"account*inactive", KIND_INACTIVE},
    {"account*suspended", KIND_INACTIVE},
    {"mailbox*disabled", KIND_INACTIVE},
    {"mailbox*inactive", KIND_INACTIVE},
    {"mailbox*suspended", KIND_INACTIVE},
    {"user*disabled", KIND_INACTIVE},
    {"user*inactive", KIND_INACTIVE},
    {"disabled*mailbox", KIND_INACTIVE},
    {"inactive*mailbox", KIND_INACTIVE},
    {"inactive*account", KIND_INACTIVE},
    {"disabled*account", KIND_INACTIVE},
    {"over*quota", KIND_FULL},
    {"exceed*quota", KIND_FULL},
    {"quota*exceed", KIND_FULL},
    {"quota*full", KIND_FULL},
    {"mailbox*_full_", KIND_FULL},
    {"inbox*_full_", KIND_FULL},
    {"out of storage", KIND_FULL},
    {"no such user", KIND_NO_USER},
    {"no such mailbox", KIND_NO_USER},
    {"no such recipient", KIND_NO_USER},
    {"no such address", KIND_NO_USER},
    {"no mailbox", KIND_NO_USER},
    {"no user", KIND_NO_USER},
    {"unknown user", KIND_NO_USER},
    {"unknown recipient", KIND_NO_USER},
    {"unknown account", KIND_NO_USER},
    {"user*unknown", KIND_NO_USER},
    {"recipient*unknown", KIND_NO_USER},
    {"address*unknown", KIND_NO_USER},
    {"mailbox*unknown", KIND_NO_USER},
    {"user*not found", KIND_NO_USER},
    {"mailbox*not found", KIND_NO_USER},
    {"recipient*not found", KIND_NO_USER},
    {"address*not found", KIND_NO_USER},
    {"user*not exist", KIND_NO_USER},
    {"mailbox*not exist", KIND_NO_USER},
    {"recipient*not exist", KIND_NO_USER},
    {"account*not exist", KIND_NO_USER},
    {"address*not exist", KIND_NO_USER},
    {"user*n't exist", KIND_NO_USER},
    {"mailbox*n't exist", KIND_NO_USER},
    {"recipient*n't exist", KIND_NO_USER},
    {"account*n't exist", KIND_NO_USER},
    {"address*n't exist", KIND_NO_USER},
    {"invalid recipient", KIND_NO_USER},
    {"invalid mailbox", KIND_NO_USER},
    {"recipientnotfound", KIND_NO_USER},
    {"mailbox unavailable", KIND_NO_USER},
    {"unbekannt", KIND_NO_USER},
    {"inconnu", KIND_NO_USER},
    {"desconocid", KIND_NO_USER},
    {"_virus_", KIND_CONTENT},
    {"malware", KIND_CONTENT},
    {"infected", KIND_CONTENT},
    {"prohibited attachment", KIND_CONTENT},
    {"message*_spam_", KIND_CONTENT},
    {"content*_spam_", KIND_CONTENT},
    {"mail*_spam_", KIND_CONTENT},
    {"_spam_*detected", KIND_CONTENT},
    {"_spam_*message", KIND_CONTENT},
    {"unsolicited", KIND_CONTENT},
    {"block list", KIND_BLOCKED},
    {"blocklist", KIND_BLOCKED},
    {"black list", KIND_BLOCKED},
    {"blacklist", KIND_BLOCKED},
    {"poor reputation", KIND_BLOCKED},
    {"bad reputation", KIND_BLOCKED},
    {"low reputation", KIND_BLOCKED},
    {"part of their network", KIND_BLOCKED},
    {"permanently", KIND_FINAL},
    {"will not succeed", KIND_FINAL},
    {"not try again", KIND_FINAL},
    {"not retry", KIND_FINAL},
    {"temporar", KIND_LATER},
    {"try again", KIND_LATER},
    {"try later", KIND_LATER},
    {"retry later", KIND_LATER},
};

enum { GAP_MAX = 60 };

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

static bool is_word_letter(struct span s, size_t at)
{
    if (at >= s.n)
        return false;
    uint8_t c = lower(s.p[at]);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
}

/* Where the part of the pattern up to its next '*' ends when it matches at `at`; 0 when not. */
static size_t match_part(struct span s, size_t at, const char *part)
{
    size_t i = at;
    for (; *part != '\0' && *part != '*'; part++) {
        if (*part == '_') {
            if (is_word_letter(s, i) && (i > 0 && is_word_letter(s, i - 1)))
                return 0;
        } else if (i >= s.n || lower(s.p[i++]) != (uint8_t)*part) {
            return 0;
        }
    }
    return i;
}

/* All parts in order, each within GAP_MAX of the one before. */
static bool match_from(struct span s, size_t at, const char *pattern)
{
    size_t end = match_part(s, at, pattern);
    while (end > 0) {
        pattern = strchr(pattern, '*');
        if (pattern == NULL)
            return true;
        pattern++;
        size_t from = end;
        end = 0;
        for (size_t gap = 0; gap <= GAP_MAX && from + gap < s.n && end == 0; gap++)
            end = match_part(s, from + gap, pattern);
    }
    return false;
}

/* The patterns that begin with a letter, chained in order of the table; 0 ends, else index + 1. */
static uint8_t first_with[256];
static uint8_t next_with[ARRAY_COUNT(texts)];

static_assert(ARRAY_COUNT(texts) < UINT8_MAX, "a pattern's number fits a byte");

__attribute__((constructor)) static void chain_patterns(void)
{
    for (size_t i = ARRAY_COUNT(texts); i > 0; i--) {
        const char *pattern = texts[i - 1].pattern;
        uint8_t letter = (uint8_t)pattern[pattern[0] == '_'];
        next_with[i - 1] = first_with[letter];
        first_with[letter] = (uint8_t)i;
    }
}

/* The kind of the first row of the table that matches anywhere in the text. */
static enum kind text_kind(struct span s)
{
    size_t best = ARRAY_COUNT(texts) + 1;
    for (size_t at = 0; at < s.n; at++) {
        for (size_t i = first_with[lower(s.p[at])]; i != 0 && i < best; i = next_with[i - 1]) {
            if (match_from(s, at, texts[i - 1].pattern))
                best = i;
        }
    }
    return best > ARRAY_COUNT(texts) ? KIND_NONE : texts[best - 1].kind;
}

/* ---- the status of a reply without one (RFC 3463, 5248) ---- */

enum {
    IN_GREETING = 1 << STAGE_CONNECT | 1 << STAGE_GREETING,
    IN_EHLO = 1 << STAGE_EHLO,
    IN_MAIL = 1 << STAGE_MAIL,
    IN_RCPT = 1 << STAGE_RCPT,
    IN_DOT = 1 << STAGE_DATA | 1 << STAGE_DOT,
    IN_QUIT = 1 << STAGE_QUIT,
    IN_ANY = (1 << STAGE_COUNT) - 1,
    IN_START = IN_GREETING | IN_EHLO,
    IN_MAIL_ON = IN_MAIL | IN_RCPT | IN_DOT,
};

static const struct {
    uint16_t code_min, code_max;
    uint16_t stages;
    uint16_t kind; /* KIND_NONE: any text */
    bool after_ok; /* only when an earlier recipient was accepted */
    uint16_t subject, detail;
} statuses[] = {
    {200, 299, IN_MAIL, KIND_NONE, false, 1, 0},
    {200, 299, IN_RCPT, KIND_NONE, false, 1, 5},
    {200, 399, IN_ANY, KIND_NONE, false, 0, 0},
    {400, 599, IN_RCPT | IN_DOT, KIND_FULL, false, 2, 2},
    {400, 599, IN_RCPT | IN_DOT, KIND_INACTIVE, false, 2, 1},
    {500, 599, IN_RCPT | IN_DOT, KIND_NO_USER, false, 1, 1},
    {400, 599, IN_ANY, KIND_BLOCKED, false, 7, 1},
    {400, 599, IN_ANY, KIND_AUTH, false, 7, 1},
    {400, 599, IN_ANY, KIND_CONTENT, false, 7, 1},
    {400, 599, IN_ANY, KIND_GREYLISTED, false, 7, 1},
    {400, 599, IN_ANY, KIND_RATE, false, 7, 0},
    {500, 599, IN_ANY, KIND_LATER, false, 3, 0},
    {421, 421, IN_ANY, KIND_NONE, false, 3, 2},
    {450, 450, IN_ANY, KIND_NONE, false, 2, 0},
    {451, 451, IN_ANY, KIND_NONE, false, 3, 0},
    {452, 452, IN_RCPT, KIND_NONE, true, 5, 3},
    {452, 452, IN_ANY, KIND_NONE, false, 3, 1},
    {454, 454, IN_ANY, KIND_NONE, false, 7, 0},
    {455, 455, IN_ANY, KIND_NONE, false, 5, 4},
    {500, 500, IN_ANY, KIND_NONE, false, 5, 2},
    {501, 501, IN_ANY, KIND_NONE, false, 5, 4},
    {502, 503, IN_ANY, KIND_NONE, false, 5, 1},
    {504, 504, IN_ANY, KIND_NONE, false, 5, 4},
    {521, 521, IN_ANY, KIND_NONE, false, 3, 2},
    {530, 530, IN_ANY, KIND_NONE, false, 7, 0},
    {534, 534, IN_ANY, KIND_NONE, false, 7, 9},
    {535, 535, IN_ANY, KIND_NONE, false, 7, 8},
    {550, 550, IN_RCPT, KIND_NONE, false, 1, 1},
    {550, 550, IN_ANY, KIND_NONE, false, 7, 1},
    {551, 551, IN_ANY, KIND_NONE, false, 1, 6},
    {552, 552, IN_RCPT, KIND_NONE, true, 5, 3},
    {552, 552, IN_RCPT, KIND_NONE, false, 2, 2},
    {552, 552, IN_ANY, KIND_NONE, false, 3, 4},
    {553, 553, IN_MAIL, KIND_NONE, false, 1, 7},
    {553, 553, IN_ANY, KIND_NONE, false, 1, 3},
    {554, 554, IN_START, KIND_NONE, false, 3, 2},
    {554, 554, IN_ANY, KIND_NONE, false, 3, 0},
    {555, 555, IN_ANY, KIND_NONE, false, 5, 4},
    {556, 556, IN_ANY, KIND_NONE, false, 1, 10},
    {571, 571, IN_ANY, KIND_NONE, false, 7, 1},
    {200, 599, IN_ANY, KIND_NONE, false, 0, 0},
};

static struct smtp_enhanced reply_status(enum smtp_stage stage, const struct smtp_reply *r,
                                         enum kind kind, bool after_ok)
{
    uint8_t class_ = r->code < 400 ? 2 : (uint8_t)(r->code / 100);
    if (r->enhanced.class_ == class_)
        return r->enhanced;
    for (size_t i = 0; i < ARRAY_COUNT(statuses); i++) {
        if (r->code < statuses[i].code_min || r->code > statuses[i].code_max ||
            !(statuses[i].stages & 1u << stage) ||
            (statuses[i].kind != KIND_NONE && statuses[i].kind != kind) ||
            (statuses[i].after_ok && !after_ok))
            continue;
        return (struct smtp_enhanced){class_, statuses[i].subject, statuses[i].detail};
    }
    return (struct smtp_enhanced){class_, 0, 0};
}

/* ---- the verdict ---- */

enum {
    ANY = 0xffff,
    WITH_BLOCKED = 1 << KIND_BLOCKED,
    WITH_GREYLISTED = 1 << KIND_GREYLISTED,
    WITH_LATER = 1 << KIND_GREYLISTED | 1 << KIND_RATE | 1 << KIND_LATER,
    WITH_POLICY = 1 << KIND_BLOCKED | 1 << KIND_AUTH | 1 << KIND_CONTENT,
    WITH_FINAL = 1 << KIND_FINAL,
};

struct rule {
    uint16_t code_min, code_max;
    uint16_t stages;
    uint16_t kinds; /* bits; 0 = any text */
    bool after_ok;
    uint16_t subject, detail; /* ANY */
    enum verdict verdict;
    enum verdict_scope scope;
    enum reason reason;
};

static const struct rule rules[] = {
    /* Success: only DATA is answered by 3yz. */
    {200, 599, IN_QUIT, 0, false, ANY, ANY, VERDICT_OK, SCOPE_NONE, REASON_NONE},
    {200, 299, 1 << STAGE_DATA, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_HOST, REASON_PROTOCOL},
    {200, 299, 1 << STAGE_DOT, 0, false, ANY, ANY, VERDICT_OK, SCOPE_NONE, REASON_DELIVERED},
    {200, 299, IN_ANY, 0, false, ANY, ANY, VERDICT_OK, SCOPE_NONE, REASON_NONE},
    {300, 399, 1 << STAGE_DATA, 0, false, ANY, ANY, VERDICT_OK, SCOPE_NONE, REASON_NONE},
    {300, 399, IN_ANY, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_HOST, REASON_PROTOCOL},

    /* Before MAIL a refusal is about us and this host, never about a message. */
    {421, 421, IN_ANY, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_CONNECTION, REASON_REMOTE_TEMP},
    {400, 599, IN_START, WITH_POLICY, false, ANY, ANY, VERDICT_TEMP, SCOPE_HOST,
     REASON_POLICY_BLOCK},
    {500, 599, IN_START, 0, false, 7, ANY, VERDICT_TEMP, SCOPE_HOST, REASON_POLICY_BLOCK},
    {400, 599, IN_START, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_HOST, REASON_REMOTE_TEMP},

    /* One mailbox is full; anything else of 452 and 552 after a 250 means "too many". */
    {400, 499, IN_RCPT, 0, false, 2, 2, VERDICT_TEMP, SCOPE_RECIPIENT, REASON_MAILBOX_FULL},
    {500, 599, IN_RCPT, 0, false, 2, 2, VERDICT_PERM, SCOPE_RECIPIENT, REASON_MAILBOX_FULL},
    {400, 499, IN_DOT, 0, false, 2, 2, VERDICT_TEMP, SCOPE_MESSAGE, REASON_MAILBOX_FULL},
    {500, 599, IN_DOT, 0, false, 2, 2, VERDICT_PERM, SCOPE_MESSAGE, REASON_MAILBOX_FULL},
    {500, 599, IN_MAIL_ON, 0, false, 3, 4, VERDICT_PERM, SCOPE_MESSAGE, REASON_TOO_BIG},
    {500, 599, IN_RCPT | IN_DOT, 0, false, 2, 3, VERDICT_PERM, SCOPE_MESSAGE, REASON_TOO_BIG},
    {400, 599, IN_RCPT, 0, true, 5, 3, VERDICT_MORE, SCOPE_NONE, REASON_NONE},
    {452, 452, IN_RCPT, 0, true, ANY, ANY, VERDICT_MORE, SCOPE_NONE, REASON_NONE},
    {552, 552, IN_RCPT, 0, true, ANY, ANY, VERDICT_MORE, SCOPE_NONE, REASON_NONE},

    /* 4yz */
    {400, 499, IN_RCPT, WITH_GREYLISTED, false, ANY, ANY, VERDICT_TEMP, SCOPE_RECIPIENT,
     REASON_GREYLISTED},
    {400, 499, IN_MAIL_ON, WITH_GREYLISTED, false, ANY, ANY, VERDICT_TEMP, SCOPE_MESSAGE,
     REASON_GREYLISTED},
    {400, 499, IN_MAIL_ON, WITH_FINAL, false, ANY, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_LASTING},
    {400, 499, IN_MAIL_ON, WITH_POLICY, false, 7, ANY, VERDICT_TEMP, SCOPE_PAIR,
     REASON_POLICY_BLOCK},
    {454, 454, IN_ANY, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_HOST, REASON_REMOTE_TEMP},
    {400, 499, IN_MAIL_ON, 0, false, 7, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},
    {400, 499, IN_MAIL_ON, WITH_LATER, false, 3, 2, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},
    {400, 499, IN_RCPT, 0, false, 5, 3, VERDICT_TEMP, SCOPE_RECIPIENT, REASON_REMOTE_TEMP},
    {452, 452, IN_MAIL_ON, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_SITE, REASON_REMOTE_TEMP},
    {451, 451, IN_ANY, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_MESSAGE, REASON_REMOTE_TEMP},
    {400, 499, IN_RCPT, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_RECIPIENT, REASON_REMOTE_TEMP},
    {400, 499, IN_ANY, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_MESSAGE, REASON_REMOTE_TEMP},

    /* Credentials of a route: a fault of configuration is no fault of the message. */
    {530, 539, IN_MAIL_ON, 0, false, ANY, ANY, VERDICT_TEMP, SCOPE_SITE, REASON_POLICY_BLOCK},

    /* 5yz that says itself it will pass; a status about the address or the syntax wins over it. */
    {500, 599, IN_MAIL_ON, WITH_GREYLISTED, false, 7, ANY, VERDICT_TEMP, SCOPE_MESSAGE,
     REASON_GREYLISTED},
    {500, 599, IN_MAIL_ON, WITH_LATER, false, 0, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},
    {500, 599, IN_MAIL_ON, WITH_LATER, false, 2, ANY, VERDICT_TEMP, SCOPE_RECIPIENT,
     REASON_REMOTE_TEMP},
    {500, 599, IN_MAIL_ON, WITH_LATER, false, 3, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},
    {500, 599, IN_MAIL_ON, WITH_LATER, false, 4, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},
    {500, 599, IN_MAIL_ON, WITH_LATER, false, 7, ANY, VERDICT_TEMP, SCOPE_PAIR, REASON_REMOTE_TEMP},

    /* 5yz */
    {500, 599, IN_RCPT, 0, false, 1, 10, VERDICT_PERM, SCOPE_DOMAIN, REASON_NULL_MX},
    {500, 599, IN_MAIL_ON, 0, false, 4, 6, VERDICT_PERM, SCOPE_MESSAGE, REASON_LOOP},
    {500, 599, IN_MAIL_ON, 0, false, 6, 3, VERDICT_PERM, SCOPE_MESSAGE, REASON_NO_8BIT},
    {500, 599, IN_MAIL_ON, 0, false, 6, 7, VERDICT_PERM, SCOPE_MESSAGE, REASON_NO_UTF8},
    {500, 599, IN_MAIL_ON, 0, false, 6, 9, VERDICT_PERM, SCOPE_MESSAGE, REASON_NO_UTF8},
    {500, 599, IN_RCPT, 0, false, 1, ANY, VERDICT_PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM},
    {500, 599, IN_MAIL_ON, WITH_BLOCKED, false, 7, ANY, VERDICT_PERM, SCOPE_PAIR,
     REASON_POLICY_BLOCK},
    {500, 599, IN_MAIL, 0, false, 7, ANY, VERDICT_PERM, SCOPE_PAIR, REASON_POLICY_BLOCK},
    {500, 599, IN_MAIL_ON, 0, false, 7, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_POLICY_BLOCK},
    {500, 504, IN_MAIL_ON, 0, false, ANY, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_PROTOCOL},
    {555, 555, IN_MAIL_ON, 0, false, ANY, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_PROTOCOL},
    {500, 599, IN_DOT, 0, false, 5, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_PROTOCOL},
    {500, 599, IN_DOT, 0, false, 6, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_PROTOCOL},
    {500, 599, IN_RCPT, 0, false, ANY, ANY, VERDICT_PERM, SCOPE_RECIPIENT, REASON_REMOTE_PERM},
    {500, 599, IN_ANY, 0, false, ANY, ANY, VERDICT_PERM, SCOPE_MESSAGE, REASON_REMOTE_PERM},
};

/* What is known of a reply when the rules are asked. */
struct facts {
    unsigned stage_bit;
    uint16_t code;
    enum kind kind;
    bool after_ok;
    struct smtp_enhanced status;
};

static bool rule_fits(const struct rule *rule, const struct facts *f)
{
    return f->code >= rule->code_min && f->code <= rule->code_max &&
           (rule->stages & f->stage_bit) && (rule->kinds == 0 || rule->kinds & 1u << f->kind) &&
           (!rule->after_ok || f->after_ok) &&
           (rule->subject == ANY || rule->subject == f->status.subject) &&
           (rule->detail == ANY || rule->detail == f->status.detail);
}

void classify_reply(enum smtp_stage stage, const struct smtp_reply *r, bool after_ok,
                    struct classification *out)
{
    MUST((size_t)stage < STAGE_COUNT);
    MUST(r->code >= 200);
    MUST(r->code <= 599);
    struct facts f = {.stage_bit = 1u << stage, .code = r->code, .after_ok = after_ok};
    if (r->code >= 400)
        f.kind = text_kind(span_of(r->text, r->text_bytes));
    f.status = reply_status(stage, r, f.kind, after_ok);
    const struct rule *rule = rules;
    while (!rule_fits(rule, &f)) {
        rule++;
        MUST(rule < rules + ARRAY_COUNT(rules)); /* the last rows take every code of every stage */
    }
    *out = (struct classification){rule->verdict, rule->scope, rule->reason, f.status};
}

/* ---- words ---- */

static const struct {
    const char *word;
    const char *text;
} reasons[REASON_COUNT] = {
    [REASON_NONE] = {"new", "waits for its first attempt"},
    [REASON_DELIVERED] = {"delivered", "the receiving server took it over"},
    [REASON_CONNECTIONS] = {"connections", "all connections of the lane to this site are in use"},
    [REASON_RATE] = {"rate", "the lane's message rate to this site is used up"},
    [REASON_CONNECT_RATE] = {"connect-rate",
                             "the lane's rate of new connections to this site is used up"},
    [REASON_BACKOFF] = {"backoff", "the site failed lately; it is probed from time to time"},
    [REASON_SUSPENDED] = {"suspended", "a reply of the site suspended this lane there"},
    [REASON_HELD_LANE] = {"held-lane", "the lane is held by the operator"},
    [REASON_HELD_TENANT] = {"held-tenant", "the tenant is held by the operator"},
    [REASON_HELD_SITE] = {"held-site", "the site is held by the operator"},
    [REASON_HELD_MESSAGE] = {"held-message", "the message is held by the operator"},
    [REASON_HELD_ALL] = {"held-all", "all delivery is held by the operator"},
    [REASON_LANE_GONE] = {"lane-gone", "its lane is no longer configured on this node"},
    [REASON_DNS_WAIT] = {"dns-wait", "the domain is being looked up"},
    [REASON_DNS_TEMP] = {"dns-temp", "the domain could not be looked up for now"},
    [REASON_DNS_NXDOMAIN] = {"dns-nxdomain", "the domain does not exist"},
    [REASON_DNS_NO_ADDRESS] = {"dns-no-address", "the domain has no mail server with an address"},
    [REASON_NULL_MX] = {"null-mx", "the domain declares that it takes no mail"},
    [REASON_LOOP] = {"loop", "the message or its route is in a loop"},
    [REASON_CONNECT_FAILED] = {"connect-failed", "no connection to the receiving server"},
    [REASON_CONNECT_TIMEOUT] = {"connect-timeout",
                                "the receiving server did not take the connection in time"},
    [REASON_SOURCE_ADDRESS] = {"source-address", "the lane's own address cannot be used here"},
    [REASON_CLOSED_BY_PEER] = {"closed", "the receiving server closed the connection"},
    [REASON_TIMEOUT] = {"timeout", "the receiving server did not answer in time"},
    [REASON_PROTOCOL] = {"protocol", "the receiving server and this one misunderstand each other"},
    [REASON_REMOTE_TEMP] = {"remote-temp", "the receiving server refused it for now"},
    [REASON_REMOTE_PERM] = {"remote-perm", "the receiving server refused it for good"},
    [REASON_GREYLISTED] = {"greylisted", "the receiving server wants it again after a while"},
    [REASON_MAILBOX_FULL] = {"mailbox-full", "the recipient's mailbox is full"},
    [REASON_POLICY_BLOCK] = {"policy-block", "a policy of the receiving side blocks it"},
    [REASON_TOO_BIG] = {"too-big", "the message is larger than the receiving server takes"},
    [REASON_NO_8BIT] = {"no-8bit", "the receiving server takes no 8-bit content"},
    [REASON_NO_UTF8] = {"no-utf8", "the receiving server takes no internationalised mail"},
    [REASON_IN_DOUBT] = {"in-doubt", "it was sent whole, but the answer was lost"},
    [REASON_EXPIRED] = {"expired", "it could not be delivered in its lifetime"},
    [REASON_DELETED] = {"deleted", "deleted by the operator"},
    [REASON_DAMAGED] = {"damaged", "its record on disk does not match its checksum"},
    [REASON_POISON] = {"poison", "parked, because it ended a worker twice"},
    [REASON_READ_FAILED] = {"read-failed", "this node's disk did not give its content back"},
    [REASON_IN_FLIGHT] = {"in-flight", "an attempt is under way"},
    [REASON_DRAINING] = {"draining", "this worker is handing over to its successor"},
    [REASON_LASTING] = {"lasting", "the receiving server refuses for a long while"},
    [REASON_ADDRESS] = {"address", "the lane's address is not on this host yet"},
    [REASON_MOVING] = {"moving", "the lane is on its way to another node"},
    [REASON_STRAY] = {"stray", "the lane is another node's, this waits to be handed over to it"},
};

const char *reason_word(enum reason r)
{
    MUST((size_t)r < REASON_COUNT);
    MUST(reasons[r].word != NULL);
    return reasons[r].word;
}

const char *reason_text(enum reason r)
{
    MUST((size_t)r < REASON_COUNT);
    MUST(reasons[r].text != NULL);
    return reasons[r].text;
}

const char *stage_word(enum smtp_stage s)
{
    static const char *const words[STAGE_COUNT] = {
        [STAGE_CONNECT] = "connect", [STAGE_GREETING] = "greeting", [STAGE_EHLO] = "ehlo",
        [STAGE_MAIL] = "mail",       [STAGE_RCPT] = "rcpt",         [STAGE_DATA] = "data",
        [STAGE_DOT] = "dot",         [STAGE_QUIT] = "quit"};
    MUST((size_t)s < STAGE_COUNT);
    return words[s];
}

void enhanced_format(struct smtp_enhanced e, char out[16])
{
    struct text t = text_of(out, 16);
    text_fmt(&t, "%u.%u.%u", (unsigned)e.class_, (unsigned)e.subject, (unsigned)e.detail);
}
