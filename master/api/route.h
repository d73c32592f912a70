/*
 * route - from method and path to an answer, or to something that is waited for.
 *
 * Afterwards either r->answer is set, or r->wait says what the request waits for.
 */
#ifndef API_ROUTE_H
#define API_ROUTE_H

#include "master/api/api.h"

void route_request(struct api *a, struct request *r, const char *method, const char *path);

#endif
