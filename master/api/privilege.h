/*
 * privilege - leaves root once the sockets are open.
 *
 * Does nothing unless started as root with `user` configured. The Unix socket is given to that user
 * and group first, so that the group's members can use the command line.
 */
#ifndef API_PRIVILEGE_H
#define API_PRIVILEGE_H

#include "config/config.h"

struct http;

/* 0 or -errno, with a line in the log: going on as root would not be what was asked for. */
NODISCARD int privilege_drop(const struct config *c, const struct http *h);

#endif
