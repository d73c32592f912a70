/*
 * fuzz_cluster - any bytes as a frame between masters, and as what it carries about moves.
 *
 * What decodes must encode again and decode to the same bytes: a value that passed the checks is
 * one that we could have sent ourselves.
 */
#include "proto/cluster_frame.h"
#include "proto/move_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void move(struct span s)
{
    static struct move_frame f, again;
    static uint8_t first[LIMIT_LINK_PAYLOAD_BYTES], second[LIMIT_LINK_PAYLOAD_BYTES];
    size_t first_n, second_n;
    if (move_decode(s, &f) < 0)
        return;
    for (uint32_t i = 0; i < f.item_count; i++) {
        MUST(f.items[i].kind >= MOVE_PREPARE && f.items[i].kind < MOVE_KIND_COUNT);
        MUST(f.items[i].epoch >= 1 && f.items[i].epoch <= LIMIT_EPOCH);
        MUST(f.items[i].slot == MOVE_NO_SLOT || f.items[i].slot < LIMIT_WORKERS);
    }
    if (move_encode(&f, first, sizeof first, &first_n) < 0)
        return; /* items and news together may be more than a frame takes */
    MUST(move_decode(span_of(first, first_n), &again) == 0);
    MUST(move_encode(&again, second, sizeof second, &second_n) == 0);
    MUST(span_eq(span_of(first, first_n), span_of(second, second_n)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct cluster_lane lanes[CLUSTER_LANES_PER_FRAME];
    static uint8_t first[LIMIT_LINK_PAYLOAD_BYTES], second[LIMIT_LINK_PAYLOAD_BYTES];
    static uint8_t scratch[LIMIT_LINK_PAYLOAD_BYTES];
    struct cluster_frame f, again;
    size_t first_n, second_n;
    move(span_of(data, n));
    if (cluster_decode(span_of(data, n), lanes, scratch, &f) < 0)
        return 0;
    if (f.kind == CLUSTER_MOVE)
        move(f.move);
    if (cluster_encode(&f, first, sizeof first, &first_n) < 0)
        return 0; /* ours are longer by what a peer left out */
    MUST(cluster_decode(span_of(first, first_n), lanes, scratch, &again) == 0);
    MUST(cluster_encode(&again, second, sizeof second, &second_n) == 0);
    MUST(span_eq(span_of(first, first_n), span_of(second, second_n)));
    return 0;
}
