/*
 * client - asks the node: HTTP over its Unix socket.
 *
 * Never goes anywhere else: no proxy, no redirect, no other protocol, whatever the environment
 * says.
 */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include "base/check.h"

#include <jansson.h>

enum { CALL_ARGS_MAX = 32, CLIENT_BODY_BYTES_MAX = 256 << 20, CLIENT_ERROR_BYTES = 512 };

struct call_arg {
    const char *key;
    const char *value;
};
struct call {
    const char *verb;
    struct call_arg args[CALL_ARGS_MAX];
    unsigned count;
};
struct reply {
    int status;
    char *body; /* malloc'd, NUL-terminated */
    size_t n;
    json_t *json; /* NULL when the body is no JSON object */
};

struct client;

struct client *client_create(const char *socket_path);
void client_destroy(struct client **c);
/*
 * 0 with a reply of any status; -ECONNREFUSED when nobody answers there, -EACCES, -ETIMEDOUT, -EIO,
 * with a text for people in `error`.
 */
NODISCARD int client_call(struct client *c, const struct call *call, struct reply *out,
                          char error[CLIENT_ERROR_BYTES]);
void reply_free(struct reply *r);
/* Adds an argument, or replaces its value. */
void call_set(struct call *c, const char *key, const char *value);
/* NULL when it is not there. */
const char *call_get(const struct call *c, const char *key);

#endif
