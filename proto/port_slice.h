/*
 * port_slice - the source ports that a lane's connections use, by its epoch.
 *
 * Two owners that follow each other never use the same ports of the lane's address: so the new one
 * tells by the port alone which packets belong to connections that its predecessor still has open,
 * and sends them on to it, without knowing any of them. A third owner has the slice of the first.
 */
#ifndef PROTO_PORT_SLICE_H
#define PROTO_PORT_SLICE_H

#include "base/check.h"

#include <assert.h>
#include <stdint.h>

struct port_slice {
    uint16_t low, high; /* both belong to it; low 0: no slice, the kernel chooses */
};

enum {
    PORT_SLICE_EVEN_LOW = 20000,
    PORT_SLICE_ODD_LOW = 40000,
    PORT_SLICE_COUNT = 20000, /* ports of each */
};
static_assert(PORT_SLICE_EVEN_LOW + PORT_SLICE_COUNT <= PORT_SLICE_ODD_LOW, "slices are apart");
static_assert(PORT_SLICE_ODD_LOW + PORT_SLICE_COUNT - 1 <= UINT16_MAX, "a port is 16 bits");

static inline struct port_slice port_slice_of(uint32_t epoch)
{
    uint16_t low = epoch % 2 == 0 ? PORT_SLICE_EVEN_LOW : PORT_SLICE_ODD_LOW;

    return (struct port_slice){low, (uint16_t)(low + PORT_SLICE_COUNT - 1)};
}

#endif
