/*
 * fuzz_link - any bytes as a frame between nodes, as its bulk payload, as what a worker says on its
 * carrier, and as a certificate's identity.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/carrier_frame.h"
#include "proto/link_bulk.h"
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

static void bulk(struct span s)
{
    static struct link_bulk b, again;
    static uint8_t bytes[LINK_BULK_BYTES_MAX];
    struct span parts, same;
    size_t sum = 0;

    if (link_bulk_decode(s, &b, &parts) < 0)
        return;
    for (uint32_t i = 0; i < b.count; i++)
        sum += b.bytes[i];
    MUST(sum == parts.n);
    MUST(parts.n == 0 || parts.p + parts.n == s.p + s.n);
    size_t n = link_bulk_encode(&b, bytes);
    if (parts.n > 0)
        memcpy(bytes + n, parts.p, parts.n);
    MUST(link_bulk_decode(span_of(bytes, n + parts.n), &again, &same) == 0);
    MUST(again.begin == b.begin);
    MUST(again.count == b.count);
    MUST(memcmp(again.bytes, b.bytes, b.count * sizeof b.bytes[0]) == 0);
    MUST(span_eq(same, parts));
}

static void carrier(struct span s)
{
    struct carrier_head h;
    uint8_t bytes[CARRIER_HEAD_BYTES];
    if (s.n < CARRIER_HEAD_BYTES || carrier_head_read(s.p, &h) < 0)
        return;
    carrier_head_write(bytes, &h);
    MUST(memcmp(bytes, s.p, sizeof bytes) == 0);
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
    bulk(span_of(data, n));
    carrier(span_of(data, n));
    uri(span_of(data, n));
    return 0;
}
