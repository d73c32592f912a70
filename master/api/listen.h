/*
 * listen - the sockets of the HTTP server.
 *
 * Returned sockets are non-blocking, close-on-exec and listening. Errors: -errno and one line that
 * names the configuration's key.
 */
#ifndef API_LISTEN_H
#define API_LISTEN_H

#include "base/net.h"

/*
 * Unix socket at `path`, mode 0660. A file left behind by a dead process is replaced; -EADDRINUSE
 * when something still answers there.
 */
NODISCARD int listen_unix(const char *path, char *error, size_t cap);
/* "address:port" or "[address]:port"; -EPERM for anything but loopback. */
NODISCARD int listen_tcp(const char *where, char *error, size_t cap);
/* Splits "address:port"; -EINVAL when it is none. Exposed for its test. */
NODISCARD int listen_parse(const char *where, struct ip *ip, uint16_t *port);
/* 127.0.0.0/8 and ::1. */
bool listen_is_loopback(const struct ip *ip);

#endif
