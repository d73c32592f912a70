/* control_link - see control_link.h. */
#include "master/api/control_link.h"

#include "base/log.h"
#include "base/text.h"
#include "master/api/event_files.h"
#include "master/api/http.h"
#include "master/api/privilege.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONFIG_BYTES_MAX = 16 << 20, ERRORS_BYTES = 16 << 10, FRAMES_PER_TURN = 256 };

/* START may come in several frames; what they carry is collected here until the last one. */
static struct {
    int fds[CONTROL_FDS_MAX];
    unsigned fd_count;
    struct pages pages; /* only its lanes */
} starting;

static void starting_clear(void)
{
    for (unsigned i = 0; i < starting.fd_count; i++)
        close(starting.fds[i]);
    starting.fd_count = 0;
    pages_unmap(&starting.pages);
}

static int read_config(int fd, const char *name, struct config **out)
{
    struct stat st;
    char *errors_text = malloc(ERRORS_BYTES);
    char *yaml = NULL;
    int r = errors_text != NULL ? 0 : -ENOMEM;

    *out = NULL;
    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && (st.st_size < 0 || st.st_size > CONFIG_BYTES_MAX))
        r = -EFBIG;
    if (r == 0) {
        yaml = malloc((size_t)st.st_size + 1);
        ssize_t n =
            yaml != NULL ? event_file_read(fd, (uint8_t *)yaml, (size_t)st.st_size, 0) : -ENOMEM;
        r = n < 0 ? (int)n : 0;
    }
    if (r == 0) {
        struct text errors = text_of(errors_text, ERRORS_BYTES);
        r = config_load(yaml, (size_t)st.st_size, name, &errors, out);
        if (r < 0)
            log_err("configuration refused: %s", errors_text);
    }
    free(yaml);
    free(errors_text);
    return r;
}

/* Takes over the new configuration. On failure nothing of the old one is lost. */
static int apply_config(struct api *a, struct config **fresh)
{
    char error[512];
    int r = http_apply(a->http, *fresh, error, sizeof error);
    if (r < 0) {
        log_err("%s", error);
        return r;
    }
    if (a->config == NULL)
        r = privilege_drop(*fresh, a->http);
    if (r < 0)
        return r;
    config_free(&a->config);
    a->config = *fresh;
    *fresh = NULL;
    (void)snprintf(a->pages.node, sizeof a->pages.node, "%s", a->config->node);
    return 0;
}

static int take_pages(struct api *a)
{
    int r = pages_map(&a->pages, starting.fds + 1, starting.fd_count - 1);
    if (r < 0) {
        log_err("the counters pages do not fit: %s", strerror(-r));
        return r;
    }
    return pages_name_lanes(&a->pages, starting.pages.lanes, starting.pages.lane_count);
}

static int send_ready(struct api *a)
{
    struct control_frame ready = {.kind = CONTROL_READY,
                                  .pid = (uint32_t)getpid(),
                                  .generation = a->generation,
                                  .version = CONTROL_VERSION};
    return control_send(a->control_fd, &ready, NULL, 0);
}

/* The last frame of START is here. */
static int finish_start(struct api *a, const struct control_frame *f)
{
    struct config *fresh = NULL;
    bool first = a->config == NULL;

    if (starting.fd_count < 2) {
        log_err("START without configuration and counters pages");
        return -EBADMSG;
    }
    int r = read_config(starting.fds[0], f->config_name, &fresh);
    if (r == 0)
        r = take_pages(a);
    if (r == 0)
        r = apply_config(a, &fresh);
    config_free(&fresh);
    if (r < 0 && first)
        return r;
    if (r < 0) {
        /* The master waits for READY of this generation; without it, it tells the operator. */
        log_err("generation %llu is not served, the one before goes on",
                (unsigned long long)f->generation);
        return 0;
    }
    a->generation = f->generation;
    log_note("serving generation=%llu workers=%u socket=%s", (unsigned long long)f->generation,
             a->pages.count, a->config->api.socket);
    return send_ready(a);
}

static int on_start(struct api *a, const struct control_frame *f, const int *fds, unsigned fd_count)
{
    for (unsigned i = 0; i < fd_count; i++) {
        if (starting.fd_count == CONTROL_FDS_MAX) {
            close(fds[i]);
            continue;
        }
        starting.fds[starting.fd_count++] = fds[i];
    }
    int r = pages_name_lanes(&starting.pages, f->lanes, f->lane_count);
    if (r == 0 && f->last)
        r = finish_start(a, f);
    if (f->last || r < 0)
        starting_clear();
    return r;
}

static struct request *request_of(struct api *a, uint64_t id)
{
    for (struct request *r = a->waiting; r != NULL; r = r->next) {
        if (r->wait == WAIT_QUERY && r->query.id == id)
            return r;
    }
    return NULL;
}

/* An answer that nobody waits for any more (it came too late) is dropped in silence. */
static void on_answer(struct api *a, const struct control_frame *f)
{
    struct request *r = request_of(a, f->id);
    if (r == NULL)
        return;
    int e = query_take(&r->query, f);
    if (e == 0)
        return;
    if (e == 1)
        query_answer(&r->query, a->pages.count, NULL, &r->answer);
    else
        answer_error(&r->answer, 502, "the answer is longer than %d MiB: narrow the question",
                     QUERY_BYTES_MAX >> 20);
    http_resume(a, r);
}

static int on_frame(struct api *a, const struct control_frame *f, const int *fds, unsigned fd_count)
{
    if (f->kind == CONTROL_START)
        return on_start(a, f, fds, fd_count);
    for (unsigned i = 0; i < fd_count; i++)
        close(fds[i]);
    if (f->kind == CONTROL_ANSWER)
        on_answer(a, f);
    return 0; /* other kinds are for workers: this process has no mail */
}

int control_link_read(struct api *a)
{
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        struct control_frame f;
        int fds[CONTROL_FDS_MAX];
        unsigned fd_count = CONTROL_FDS_MAX;
        int r = control_receive(a->control_fd, &f, fds, &fd_count);
        if (r == -EAGAIN)
            return 0;
        if (r == 0)
            return 1;
        if (r < 0) {
            log_err("malformed frame from the master: %s", strerror(-r));
            return r;
        }
        r = on_frame(a, &f, fds, fd_count);
        control_free(&f);
        if (r < 0)
            return r;
    }
    return 0;
}

int control_link_ask(struct api *a, const struct request *r)
{
    struct control_frame f = {.kind = CONTROL_QUERY, .id = r->query.id};
    char *args[ARGS_MAX];
    MUST(r->args.count <= LIMIT_QUERY_ARGS);
    for (unsigned i = 0; i < r->args.count; i++)
        args[i] = r->args.item[i];
    f.args = args;
    f.arg_count = r->args.count;
    (void)snprintf(f.verb, sizeof f.verb, "%s", r->query.verb->name);
    return control_send(a->control_fd, &f, NULL, 0);
}
