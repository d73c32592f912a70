/*
 * fuzz_link - any bytes as a frame between nodes, and as a certificate's identity.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/link_frame.h"
#include "proto/node_uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void frame(struct span s)
{
    static uint8_t first[LIMIT_LINK_FRAME_BYTES], second[LIMIT_LINK_FRAME_BYTES];
    struct link_frame f, again;
    size_t first_n, second_n;

    if (link_frame_decode(s, &f) < 0)
        return;
    MUST(link_frame_encode(&f, first, sizeof first, &first_n) == 0);
    MUST(first_n <= link_frame_room(&f));
    MUST(link_frame_decode(span_of(first, first_n), &again) == 0);
    MUST(link_frame_encode(&again, second, sizeof second, &second_n) == 0);
    MUST(span_eq(span_of(first, first_n), span_of(second, second_n)));
    link_frame_free(&again);
    link_frame_free(&f);
}

static void uri(struct span s)
{
    char text[NODE_URI_BYTES];
    struct node_uri u;
    if (node_uri_parse(s, &u) < 0 || strcmp(u.role, "node") != 0)
        return;
    node_uri_format(u.cluster, u.name, text);
    MUST(span_eq(span_str(text), s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    frame(span_of(data, n));
    uri(span_of(data, n));
    return 0;
}
