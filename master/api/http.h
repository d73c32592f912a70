/*
 * http - the HTTP server: a Unix socket, and TCP on loopback if configured.
 *
 * Single-threaded on libmicrohttpd in external polling mode: its two epoll descriptors go into
 * main's poll. A request that waits for the master is suspended, never blocks the loop.
 *
 * There is no authentication yet: the Unix socket has mode 0660, and TCP is refused on anything but
 * loopback. Browsers are kept out of both: a foreign Origin, or a Host that is no loopback name
 * (DNS rebinding), is refused.
 */
#ifndef API_HTTP_H
#define API_HTTP_H

#include "master/api/api.h"

struct http;

enum { HTTP_CONNECTIONS_MAX = 64, HTTP_IDLE_S = 30, HTTP_SERVERS_MAX = 8 };

/* NULL without memory. Listens nowhere yet. */
struct http *http_create(struct api *a);
/*
 * Listens as the configuration says; what has not changed is left alone, and an address given up is
 * closed when its last connection is. On failure -errno, one line in `error` that says what to
 * change, and everything is as before.
 */
NODISCARD int http_apply(struct http *h, const struct config *c, char *error, size_t cap);
/* Gives the socket's file to a user and group; -errno. */
NODISCARD int http_chown(const struct http *h, uid_t uid, gid_t gid);
/* Closes connections (waiting requests are dropped) and removes the socket's file. */
void http_destroy(struct http **h);
/* Descriptors to poll for reading; their number. */
unsigned http_descriptors(const struct http *h, int fds[HTTP_SERVERS_MAX]);
/* Milliseconds until http_run wants to be called, -1 = not before a descriptor is readable. */
int http_timeout_ms(const struct http *h);
void http_run(struct http *h);
/* The request's answer is in r->answer: it leaves the waiting list and goes out. */
void http_resume(struct api *a, struct request *r);

#endif
