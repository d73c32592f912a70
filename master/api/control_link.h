/*
 * control_link - the api process's end of descriptor 3.
 *
 * In:  START (configuration, counters pages), ANSWER. Out: READY, QUERY.
 * Never: survives a malformed frame or the master's end.
 */
#ifndef API_CONTROL_LINK_H
#define API_CONTROL_LINK_H

#include "master/api/api.h"

/*
 * Reads frames until there are none. 0; 1 when the master is gone; -errno when this process cannot
 * go on (malformed frame, or a first configuration that it cannot serve).
 */
NODISCARD int control_link_read(struct api *a);
/* Sends the request's verb and arguments as query `r->query`. 0 or -errno (-EAGAIN: master busy).
 */
NODISCARD int control_link_ask(struct api *a, const struct request *r);

#endif
