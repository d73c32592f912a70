/*
 * identity - what makes one generated message recognisable wherever it turns up.
 *
 * It travels in a header near the top of the message, `X-Mochila-Seq: <run>-<number>-<time_ns>`:
 * run is random per source, number counts its messages from 0, time is CLOCK_MONOTONIC when the
 * message was sent, which all processes of one machine share. Copies of one message have the same
 * run and number; one recipient's copy is named by (run, number, recipient).
 */
#ifndef BENCH_IDENTITY_H
#define BENCH_IDENTITY_H

#include "base/span.h"

#define IDENTITY_FIELD "X-Mochila-Seq"

enum {
    IDENTITY_RUN_DIGITS = 8,     /* hexadecimal */
    IDENTITY_NUMBER_DIGITS = 10, /* decimal */
    IDENTITY_TIME_DIGITS = 19,   /* decimal */
    IDENTITY_KEY_BYTES = IDENTITY_RUN_DIGITS + 1 + IDENTITY_NUMBER_DIGITS,
    IDENTITY_BYTES = IDENTITY_KEY_BYTES + 1 + IDENTITY_TIME_DIGITS,
};

struct identity {
    uint64_t number; /* below 2^32 */
    uint64_t time_ns;
    uint32_t run;
};

/* Writes exactly IDENTITY_KEY_BYTES letters, `<run>-<number>`, without a NUL. */
void identity_write_key(char *out, uint32_t run, uint64_t number);
/* Writes exactly IDENTITY_BYTES letters without a NUL. */
void identity_write(char *out, struct identity id);
/* The text after the field's colon, blanks around it allowed; any digit counts; -EINVAL otherwise.
 */
NODISCARD int identity_parse(struct span text, struct identity *out);
/* As identity_parse for `<run>-<number>` alone, as it stands in record files. */
NODISCARD int identity_parse_key(struct span text, struct identity *out);
/* True when the line (without its end) is the identity field; *value is what follows the colon. */
bool identity_field(struct span line, struct span *value);

#endif
