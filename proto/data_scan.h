/*
 * data_scan - finds the end of DATA and checks line discipline, in any split of the stream.
 *
 * The one place in the program that decides what ends a message: CRLF.CRLF and nothing else (RFC
 * 5321 4.1.1.4). Bare CR and bare LF never end anything; they are counted, and the session rejects
 * or normalises. Pure and resumable: feed spans as they arrive.
 */
#ifndef PROTO_DATA_SCAN_H
#define PROTO_DATA_SCAN_H

#include "base/span.h"

struct data_scan {
    uint8_t state;           /* private: where in CR LF . CR LF the last byte left us */
    bool in_header;
    bool has_8bit;
    bool has_8bit_header;
    bool has_nul;
    uint32_t bare_cr;
    uint32_t bare_lf;
    uint32_t dots;           /* lines that begin with a dot to be removed again (stored with it) */
    uint32_t received_fields;
    uint32_t delivered_to_fields;
    uint32_t header_fields;
    uint32_t header_bytes;
    uint32_t line_bytes;     /* of the line under way, without its end */
    uint32_t line_bytes_max;
    uint64_t bytes; /* wire bytes seen that belong to the message (final dot line not counted) */
    char field[16];          /* private: first letters of a header line split over spans */
    uint8_t field_bytes;
};

void data_scan_init(struct data_scan *s);
/*
 * DATA: returns how many bytes of `in` belong to the message; *done when the final CRLF.CRLF ended
 * within `in`, and then *consumed says how many bytes of `in` the end took in all (message +
 * ".CRLF"); else *consumed = in.n. The CRLF before the dot belongs to the message. Note that the
 * end marker may begin in an earlier span: when that was so, the message already holds bytes of it,
 * and *excess says how many bytes to cut from the stored end (0..2: "." or ".\r").
 */
struct data_scan_result {
    size_t message_bytes;
    size_t consumed;
    size_t excess;
    bool done;
};
struct data_scan_result data_scan_feed(struct data_scan *s, struct span in);
/* An empty message is ".CRLF" right after DATA: the scan starts as if CRLF had just been seen. */

/*
 * BDAT (RFC 3030): content is not dot-stuffed and may hold anything. bdat_scan counts the same
 * facts without looking for an end; `dots` counts lines that begin with a dot, which must be
 * stuffed before storing.
 */
void bdat_scan_feed(struct data_scan *s, struct span in);
/*
 * The content is whole: a CR at its end counts as bare. True when it ends with CRLF or is empty; if
 * not, the session completes the last line.
 */
NODISCARD bool bdat_scan_end(struct data_scan *s);
/*
 * Writes `in` in wire form to out: every LF and CR becomes part of one CRLF when `normalise`, lines
 * beginning with a dot get another one when `stuff`. Returns bytes written; cap of out must be at
 * least 2 * in.n + 2. *state carries over between spans (start with 0). A line that begins only
 * because it was normalised is stuffed in any case, and content of DATA, which is stuffed already
 * (`stuff` false), ends with CRLF. What was normalised is a new text: scan it
 * again with bdat_scan_feed to know its facts.
 */
size_t wire_form(struct span in, bool normalise, bool stuff, uint8_t *state, uint8_t *out);
/* Removes the stuffed dots of a wire-form body; out may be the same memory. Returns bytes. */
size_t wire_unstuff(struct span in, uint8_t *out);

#endif
