/* quiet - see quiet.h. */
#include "master/link/quiet.h"

#include "base/table.h"

bool quiet_may_say(struct quiet *q, struct span thing, uint64_t now_ms, unsigned *unsaid)
{
    uint32_t hash = hash_bytes(thing);
    unsigned oldest = 0;

    MUST(now_ms > 0);
    *unsaid = 0;
    for (unsigned i = 0; i < QUIET_THINGS; i++) {
        if (q->things[i].said_ms != 0 && q->things[i].hash == hash) {
            if (now_ms - q->things[i].said_ms < QUIET_MS) {
                q->things[i].unsaid++;
                return false;
            }
            *unsaid = q->things[i].unsaid;
            q->things[i].unsaid = 0;
            q->things[i].said_ms = now_ms;
            return true;
        }
        if (q->things[i].said_ms < q->things[oldest].said_ms)
            oldest = i;
    }
    q->things[oldest].hash = hash;
    q->things[oldest].unsaid = 0;
    q->things[oldest].said_ms = now_ms;
    return true;
}
