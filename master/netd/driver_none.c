/*
 * driver_none - the address is on both hosts already, or somebody else moves it.
 *
 * Nothing to do is done at once.
 */
#include "master/netd/driver.h"

static enum driver_result nothing(struct netd *n, struct lane *l)
{
    (void)n;
    (void)l;
    return DRIVER_OK;
}

static void no_trace(struct netd *n, struct lane *l)
{
    (void)n;
    (void)l;
}

static bool always(struct netd *n, const struct lane *l)
{
    (void)n;
    (void)l;
    return true;
}

const struct driver driver_none = {
    .name = "none",
    .begin = {[NETD_PREPARE] = nothing,
              [NETD_RELEASE] = nothing,
              [NETD_ACQUIRE] = nothing,
              [NETD_VERIFY] = nothing,
              [NETD_END_TAIL] = nothing},
    .step = nothing,
    .abandon = no_trace,
    .holds = always,
    .renew = no_trace,
    .announce = no_trace,
};
