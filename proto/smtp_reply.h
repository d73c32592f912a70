/*
 * smtp_reply - collects one remote reply out of a byte stream (RFC 5321 4.2, 2034).
 *
 * Tolerant of what the world sends: code-only lines, unknown codes, odd spacing, bare LF at line
 * ends, differing codes within one reply (the last line counts). Bounded by LIMIT_REMOTE_*.
 */
#ifndef PROTO_SMTP_REPLY_H
#define PROTO_SMTP_REPLY_H

#include "base/span.h"
#include "proto/limits.h"

struct smtp_enhanced {
    uint8_t class_; /* 2, 4 or 5; 0 = none given */
    uint16_t subject;
    uint16_t detail;
};

struct smtp_reply {
    uint16_t code;                  /* 200..599 */
    struct smtp_enhanced enhanced;  /* of the first line that has one of the code's class */
    uint16_t lines;
    uint16_t text_bytes;
    char text[LIMIT_REPLY_KEPT_BYTES +
              1]; /* all lines, each with its code, joined by '\n', cut at the limit */
};

enum smtp_reply_result { SMTP_REPLY_MORE, SMTP_REPLY_DONE, SMTP_REPLY_BROKEN };

/* The line that is being collected, and the reply so far. */
struct smtp_reply_reader {
    struct smtp_reply reply;
    uint32_t bytes;     /* of this reply so far */
    uint16_t line_bytes;
    bool done;                    /* private: the next call starts a new reply */
    struct smtp_enhanced seen[6]; /* private: the first one of each class */
    char line[LIMIT_REMOTE_LINE_BYTES];
};

void smtp_reply_reader_reset(struct smtp_reply_reader *r);
/*
 * Takes bytes from the front of *in until one reply is whole. On DONE *in is what follows and
 * r->reply is valid until the next call, which starts a new reply. BROKEN: not SMTP, or over a
 * limit; close.
 */
NODISCARD enum smtp_reply_result smtp_reply_feed(struct smtp_reply_reader *r, struct span *in);

/* One text line of the reply without its code and separator: the i-th, or an empty span. */
struct span smtp_reply_text_line(const struct smtp_reply *r, unsigned i);

/* What an EHLO reply offers. */
struct smtp_offer {
    bool pipelining, chunking, eightbitmime, smtputf8, size, starttls, dsn, enhanced;
    uint64_t size_max;       /* 0 = no limit given */
    uint32_t rcpt_max;       /* RFC 9422 LIMITS RCPTMAX, 0 = none given */
    uint32_t mail_max;       /* RFC 9422 LIMITS MAILMAX, 0 = none given */
};
void smtp_offer_parse(const struct smtp_reply *ehlo, struct smtp_offer *out);

#endif
