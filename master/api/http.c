/*
 * http - see http.h.
 *
 * Invariants: a suspended connection's request is in a->waiting, and only those are; MHD is stopped
 * only after every one of its connections was resumed (it aborts otherwise).
 */
#include "master/api/http.h"

#include "base/log.h"
#include "master/api/listen.h"
#include "master/api/route.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

enum { CONNECTION_BYTES = 32 << 10, WHERE_BYTES = 256 };

/* One listening address. Retired: it accepts nobody and ends with its last connection. */
struct server {
    struct MHD_Daemon *daemon; /* NULL: the place is free */
    bool tcp, retired;
    char where[WHERE_BYTES];
    struct http *http;
};
struct http {
    struct api *api;
    struct server servers[HTTP_SERVERS_MAX];
};

static struct request *request_create(struct MHD_Connection *c, bool tcp)
{
    struct request *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->connection = c;
        r->tcp = tcp;
    }
    return r;
}

static void list_add(struct api *a, struct request *r)
{
    r->prev = NULL;
    r->next = a->waiting;
    if (r->next != NULL)
        r->next->prev = r;
    a->waiting = r;
}

static void list_remove(struct api *a, struct request *r)
{
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        a->waiting = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    r->next = r->prev = NULL;
}

void http_resume(struct api *a, struct request *r)
{
    MUST(r->state == REQUEST_WAITING);
    list_remove(a, r);
    query_fini(&r->query);
    trace_destroy(&r->trace);
    r->wait = WAIT_NOTHING;
    r->state = REQUEST_ANSWERED;
    r->resumed = true;
    a->resumed++;
    a->resumed_ever++;
    MHD_resume_connection(r->connection);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **con_cls,
                         enum MHD_RequestTerminationCode why)
{
    struct request *r = *con_cls;
    struct server *s = cls;
    (void)c;
    (void)why;
    if (r == NULL)
        return;
    MUST(r->state != REQUEST_WAITING);
    if (r->resumed)
        s->http->api->resumed--;
    args_free(&r->args);
    answer_free(&r->answer);
    free(r);
    *con_cls = NULL;
}

/* tidy: parameters as libmicrohttpd calls it. */
static enum MHD_Result on_argument(void *cls, enum MHD_ValueKind kind, const char *key,
                                   size_t key_n, const char *value, size_t value_n)
{
    struct request *r = cls;
    (void)kind;
    if (r->error[0] == '\0' &&
        args_add(&r->args, span_of(key, key_n), span_of(value, value_n), r->error) < 0)
        return MHD_NO;
    return MHD_YES;
}

static bool type_is(const char *type, const char *wanted)
{
    size_t n = strlen(wanted);
    return strncasecmp(type, wanted, n) == 0 &&
           (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

/* 0, or the HTTP status of the error in r->error. */
static int read_arguments(struct request *r)
{
    const char *type =
        MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    struct span body = span_of(r->body, r->body_bytes);

    (void)MHD_get_connection_values_n(r->connection, MHD_GET_ARGUMENT_KIND, on_argument, r);
    if (r->error[0] != '\0')
        return MHD_HTTP_BAD_REQUEST;
    if (r->discarded_bytes > 0) {
        (void)snprintf(r->error, sizeof r->error, "the body is longer than %d bytes",
                       REQUEST_BODY_BYTES);
        return MHD_HTTP_CONTENT_TOO_LARGE;
    }
    if (body.n == 0)
        return 0;
    if (type != NULL && type_is(type, "application/json"))
        return args_add_json(&r->args, body, r->error) < 0 ? MHD_HTTP_BAD_REQUEST : 0;
    if (type == NULL || type_is(type, "application/x-www-form-urlencoded"))
        return args_add_form(&r->args, body, r->error) < 0 ? MHD_HTTP_BAD_REQUEST : 0;
    (void)snprintf(r->error, sizeof r->error,
                   "a body is application/json or application/x-www-form-urlencoded");
    return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
}

/*
 * A page in a browser on this host must not operate the node. Programs send no Origin; a page of
 * ours would send one equal to Host; and a foreign name that resolves to loopback is no page of
 * ours.
 */
static bool browser_is_foreign(const struct request *r)
{
    const char *origin =
        MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN);
    const char *host =
        MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    char name[256];
    struct ip ip;
    uint16_t port;

    if (host == NULL)
        host = "";
    if (origin != NULL && (strncmp(origin, "http://", 7) != 0 || strcasecmp(origin + 7, host) != 0))
        return true;
    if (!r->tcp)
        return false;
    (void)snprintf(name, sizeof name, "%s", host);
    char *colon = strrchr(name, ':');
    bool is_number = listen_parse(host, &ip, &port) == 0 || ip_parse(span_str(host), &ip) == 0;
    if (is_number)
        return !listen_is_loopback(&ip);
    if (colon != NULL)
        *colon = '\0';
    return strcasecmp(name, "localhost") != 0;
}

static enum MHD_Result send_answer(struct request *r)
{
    struct answer *a = &r->answer;
    static char nothing[1];
    bool empty = a->body == NULL;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(empty ? 0 : a->n, empty ? nothing : a->body,
                                        empty ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        return MHD_NO;
    a->body = NULL; /* MHD owns it now */
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, a->allow);
    enum MHD_Result sent = MHD_queue_response(r->connection, (unsigned)a->status, response);
    MHD_destroy_response(response);
    return sent;
}

/* The whole request is here. */
static enum MHD_Result begin(struct api *a, struct request *r, const char *method, const char *url)
{
    if (browser_is_foreign(r)) {
        answer_error(&r->answer, MHD_HTTP_FORBIDDEN,
                     "requests from web pages of other origins or host names are refused");
    } else {
        int status = read_arguments(r);
        if (status != 0)
            answer_error(&r->answer, status, "%s", r->error);
        else
            route_request(a, r, method, url);
    }
    if (r->wait == WAIT_NOTHING) {
        r->state = REQUEST_ANSWERED;
        return send_answer(r);
    }
    r->state = REQUEST_WAITING;
    list_add(a, r);
    MHD_suspend_connection(r->connection);
    return MHD_YES;
}

static enum MHD_Result take_body(struct request *r, const char *data, size_t *n)
{
    size_t room = sizeof r->body - r->body_bytes;
    size_t take = *n < room && r->discarded_bytes == 0 ? *n : 0;
    memcpy(r->body + r->body_bytes, data, take);
    r->body_bytes += take;
    r->discarded_bytes += *n - take;
    *n = 0;
    /* Reading on is polite, since the client then sees our 413; but not for ever. */
    return r->discarded_bytes <= REQUEST_DISCARD_BYTES ? MHD_YES : MHD_NO;
}

/* tidy: parameters as libmicrohttpd calls it. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_n, void **con_cls)
{
    struct server *s = cls;
    struct request *r = *con_cls;
    (void)version;

    if (r == NULL) {
        *con_cls = request_create(c, s->tcp);
        return *con_cls != NULL ? MHD_YES : MHD_NO;
    }
    switch (r->state) {
    case REQUEST_READING:
        if (*upload_n > 0)
            return take_body(r, upload, upload_n);
        return begin(s->http->api, r, method, url);
    case REQUEST_WAITING:
        return MHD_YES;
    case REQUEST_ANSWERED:
        return send_answer(r);
    }
    return MHD_NO;
}

static void on_log(void *cls, const char *fmt, va_list args) PRINTF_LIKE(2, 0);
static void on_log(void *cls, const char *fmt, va_list args)
{
    char line[256];
    (void)cls;
    (void)vsnprintf(line, sizeof line, fmt, args);
    line[strcspn(line, "\n")] = '\0';
    log_dbg("http: %s", line);
}

struct http *http_create(struct api *a)
{
    struct http *h = calloc(1, sizeof *h);
    if (h != NULL)
        h->api = a;
    return h;
}

static struct server *server_at(struct http *h, const char *where, bool tcp)
{
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        struct server *s = &h->servers[i];
        if (s->daemon != NULL && !s->retired && s->tcp == tcp && strcmp(s->where, where) == 0)
            return s;
    }
    return NULL;
}

static int server_start(struct http *h, const char *where, bool tcp, char *error, size_t cap)
{
    struct server *s = NULL;
    for (size_t i = 0; i < HTTP_SERVERS_MAX && s == NULL; i++) {
        if (h->servers[i].daemon == NULL)
            s = &h->servers[i];
    }
    if (s == NULL) {
        (void)snprintf(error, cap, "api: too many addresses at which connections are still open");
        return -EMFILE;
    }
    int fd = tcp ? listen_tcp(where, error, cap) : listen_unix(where, error, cap);
    if (fd < 0)
        return fd;
    *s = (struct server){.tcp = tcp, .http = h};
    (void)snprintf(s->where, sizeof s->where, "%s", where);
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, s,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)HTTP_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_END);
    if (s->daemon != NULL)
        return 0;
    (void)snprintf(error, cap, "api: the HTTP server did not start at %s", where);
    close(fd);
    return -EIO;
}

static void server_retire(struct server *s)
{
    MHD_socket fd = MHD_quiesce_daemon(s->daemon);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    if (!s->tcp)
        (void)unlink(s->where);
    s->retired = true;
}

int http_apply(struct http *h, const struct config *c, char *error, size_t cap)
{
    bool new_unix = server_at(h, c->api.socket, false) == NULL;
    bool wants_tcp = c->api.listen[0] != '\0';
    struct server *fresh = NULL;
    int r = 0;

    if (new_unix) {
        r = server_start(h, c->api.socket, false, error, cap);
        fresh = r == 0 ? server_at(h, c->api.socket, false) : NULL;
    }
    if (r == 0 && wants_tcp && server_at(h, c->api.listen, true) == NULL)
        r = server_start(h, c->api.listen, true, error, cap);
    if (r < 0) {
        if (fresh != NULL)
            server_retire(fresh);
        return r;
    }
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        struct server *s = &h->servers[i];
        const char *wanted = s->tcp ? c->api.listen : c->api.socket;
        if (s->daemon != NULL && !s->retired && strcmp(s->where, wanted) != 0)
            server_retire(s);
    }
    return 0;
}

int http_chown(const struct http *h, uid_t uid, gid_t gid)
{
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        const struct server *s = &h->servers[i];
        if (s->daemon != NULL && !s->retired && !s->tcp && chown(s->where, uid, gid) < 0)
            return -errno;
    }
    return 0;
}

void http_destroy(struct http **h)
{
    if (*h == NULL)
        return;
    struct api *a = (*h)->api;
    while (a->waiting != NULL) {
        answer_error(&a->waiting->answer, MHD_HTTP_SERVICE_UNAVAILABLE, "the node is stopping");
        http_resume(a, a->waiting);
    }
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        struct server *s = &(*h)->servers[i];
        if (s->daemon == NULL)
            continue;
        if (!s->retired)
            server_retire(s);
        MHD_stop_daemon(s->daemon);
    }
    free(*h);
    *h = NULL;
}

unsigned http_descriptors(const struct http *h, int fds[HTTP_SERVERS_MAX])
{
    unsigned n = 0;
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        if (h->servers[i].daemon == NULL)
            continue;
        const union MHD_DaemonInfo *info =
            MHD_get_daemon_info(h->servers[i].daemon, MHD_DAEMON_INFO_EPOLL_FD);
        MUST(info != NULL);
        fds[n++] = info->epoll_fd;
    }
    return n;
}

int http_timeout_ms(const struct http *h)
{
    int least = -1;
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        MHD_UNSIGNED_LONG_LONG ms;
        if (h->servers[i].daemon == NULL || MHD_get_timeout(h->servers[i].daemon, &ms) != MHD_YES)
            continue;
        int capped = ms > 60000 ? 60000 : (int)ms;
        if (least < 0 || capped < least)
            least = capped;
    }
    return least;
}

void http_run(struct http *h)
{
    for (size_t i = 0; i < HTTP_SERVERS_MAX; i++) {
        struct server *s = &h->servers[i];
        if (s->daemon == NULL)
            continue;
        (void)MHD_run(s->daemon);
        const union MHD_DaemonInfo *info =
            MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
        if (s->retired && info != NULL && info->num_connections == 0) {
            MHD_stop_daemon(s->daemon);
            *s = (struct server){0};
        }
    }
}
