/*
 * quiet - a line of the log for the same thing at most once in QUIET_MS.
 *
 * Whoever reaches the port can make us refuse him as often as he likes; the log must not grow with
 * it. Things are told apart by a text; of more things at a time than fit, the oldest is forgotten.
 */
#ifndef LINK_QUIET_H
#define LINK_QUIET_H

#include "base/span.h"

enum { QUIET_MS = 10000, QUIET_THINGS = 64 };

struct quiet {
    struct {
        uint32_t hash;
        uint32_t unsaid;
        uint64_t said_ms; /* 0: free */
    } things[QUIET_THINGS];
};

/* True: say it, and that it happened *unsaid times without a line before. now_ms > 0. */
bool quiet_may_say(struct quiet *q, struct span thing, uint64_t now_ms, unsigned *unsaid);

#endif
