/*
 * cmd_top - the loop, the terminal and the keys of `mochila top`; the picture is in top.c.
 *
 * The terminal is always given back as it was: on q, on a signal, on an error.
 */
#include "ctl/cmd.h"
#include "ctl/top.h"

#include "base/span.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    INTERVAL_S_MAX = 60,
    BATCH_MAX = 1000000,
    QUEUE_LIMIT = 50,
    LINES_MIN = 10,
    LINES_PRESET = 24,
};

struct top {
    struct cli *c;
    unsigned long interval_s, frames; /* frames 0: until stopped */
    enum top_by by;
    bool live;
    json_t *before, *now, *queue;
    struct termios saved;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static int read_number(const struct cli *c, const char *option, unsigned long max,
                       unsigned long *out)
{
    const char *value = cli_given(c, option);
    uint64_t n;
    if (value == NULL)
        return 0;
    if (span_to_u64(span_str(value), &n) < 0 || n < 1 || n > max) {
        (void)cli_fail(CLI_USAGE, "--%s wants a number from 1 to %lu, not \"%s\"", option, max,
                       value);
        command_usage(c->command, stderr);
        return CLI_USAGE;
    }
    *out = n;
    return 0;
}

static int read_options(struct top *t)
{
    const char *by = cli_given(t->c, "by");
    int r = read_number(t->c, "interval", INTERVAL_S_MAX, &t->interval_s);
    if (r == 0)
        r = read_number(t->c, "batch", BATCH_MAX, &t->frames);
    if (r != 0)
        return r;
    if (cli_given(t->c, "once") != NULL)
        t->frames = 1;
    if (by == NULL)
        return 0;
    for (t->by = TOP_LANE; t->by <= TOP_TENANT; t->by++) {
        if (strcmp(by, top_by_word(t->by)) == 0)
            return 0;
    }
    (void)cli_fail(CLI_USAGE, "--by is lane, site or tenant, not \"%s\"", by);
    command_usage(t->c->command, stderr);
    return CLI_USAGE;
}

/* One answer as JSON, or NULL with the reason in error. */
static json_t *ask(struct cli *c, const struct call *call, int *e, char error[CLIENT_ERROR_BYTES])
{
    struct reply reply;
    json_t *json = NULL;
    error[0] = '\0';
    *e = client_call(c->client, call, &reply, error);
    if (*e < 0)
        return NULL;
    if (reply.status == 200)
        json = json_incref(reply.json);
    if (json == NULL) {
        *e = -EPROTO;
        (void)snprintf(error, CLIENT_ERROR_BYTES, "%s",
                       json_word(reply.json, "error", "the answer is no JSON object"));
    }
    reply_free(&reply);
    return json;
}

static int sample(struct top *t, char error[CLIENT_ERROR_BYTES])
{
    struct call stats = {.verb = "stats"};
    struct call queue = {.verb = "queue"};
    char ignored[CLIENT_ERROR_BYTES];
    int e;

    json_t *now = ask(t->c, &stats, &e, error);
    if (now == NULL)
        return e;
    json_decref(t->before);
    t->before = t->now;
    t->now = now;
    json_decref(t->queue);
    t->queue = NULL;
    if (t->by == TOP_LANE)
        return 0;
    char limit[16];
    (void)snprintf(limit, sizeof limit, "%d", QUEUE_LIMIT);
    call_set(&queue, "by", top_by_word(t->by));
    call_set(&queue, "limit", limit);
    /* The counters are worth showing while the workers are too busy to list their sites. */
    t->queue = ask(t->c, &queue, &e, ignored);
    return 0;
}

static void terminal_open(struct top *t)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &t->saved) < 0)
        return;
    raw = t->saved;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* stopping here would leave the terminal raw */
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fputs("\033[?1049h\033[?25l", stdout); /* second screen, no cursor */
}

static void terminal_close(struct top *t)
{
    fputs("\033[?25h\033[?1049l", stdout);
    (void)fflush(stdout);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
}

static unsigned screen_lines(void)
{
    struct winsize w;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_row == 0)
        return LINES_PRESET; /* a terminal that does not know its size */
    return w.ws_row < LINES_MIN ? LINES_MIN : w.ws_row;
}

/* Puts the text on the screen, at most `lines` lines, and clears what the last frame left. */
static void put_screen(const char *text, unsigned lines)
{
    fputs("\033[H", stdout);
    for (unsigned i = 0; i < lines && *text != '\0'; i++) {
        size_t n = strcspn(text, "\n");
        printf("%s%.*s\033[K", i > 0 ? "\r\n" : "", (int)n, text);
        text += n + (text[n] == '\n' ? 1 : 0);
    }
    fputs("\033[J", stdout);
    (void)fflush(stdout);
}

static void draw(struct top *t, const char *error)
{
    struct top_frame f = {.before = t->before, .now = t->now, .queue = t->queue, .by = t->by};
    struct view v = view_of_stdout();
    char *text = NULL;
    size_t n = 0;

    if (!t->live) {
        top_draw(&v, &f);
        view_fmt(&v, "\n");
        return;
    }
    unsigned lines = screen_lines();
    f.rows = lines - 1;
    v.out = open_memstream(&text, &n);
    if (v.out == NULL)
        return;
    if (error[0] != '\0') {
        view_colour(&v, COLOUR_RED);
        view_put(&v, error);
        view_colour(&v, COLOUR_NONE);
        view_fmt(&v, "\n");
        f.rows--;
    }
    if (t->now != NULL)
        top_draw(&v, &f);
    (void)fclose(v.out);
    if (text != NULL)
        put_screen(text, lines);
    free(text);
}

static void on_key(struct top *t, char key)
{
    switch (key) {
    case 'q':
    case 'Q':
        stopped = 1;
        return;
    case 'l':
        t->by = TOP_LANE;
        return;
    case 's':
        t->by = TOP_SITE;
        return;
    case 't':
        t->by = TOP_TENANT;
        return;
    default: /* any other key of the keyboard: nothing */
        return;
    }
}

static int64_t now_ms(void)
{
    struct timespec t;
    MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Waits for the next frame; a key ends the wait at once. */
static void wait_turn(struct top *t)
{
    int64_t end = now_ms() + (int64_t)t->interval_s * 1000;
    int64_t left;
    while (stopped == 0 && (left = end - now_ms()) > 0) {
        struct pollfd p = {.fd = t->live ? STDIN_FILENO : -1, .events = POLLIN};
        char key;
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1) {
            stopped = 1; /* the terminal is gone */
            return;
        }
        on_key(t, key);
        return;
    }
}

/* The first failure ends a plain run; a live one waits for the node to come back. */
static int loop(struct top *t)
{
    char error[CLIENT_ERROR_BYTES];
    unsigned long drawn = 0;
    int r = sample(t, error);

    if (r < 0)
        return cli_fail(r == -ECONNREFUSED || r == -EACCES ? CLI_NOT_RUNNING : CLI_ERROR, "%s",
                        error);
    if (t->live) {
        terminal_open(t);
        draw(t, error);
    }
    while (stopped == 0 && (t->frames == 0 || drawn < t->frames)) {
        wait_turn(t);
        if (stopped != 0)
            break;
        r = sample(t, error);
        if (r < 0 && !t->live)
            return cli_fail(r == -ECONNREFUSED ? CLI_NOT_RUNNING : CLI_ERROR, "%s", error);
        if (t->c->json) {
            (void)json_dumpf(t->now, stdout, JSON_COMPACT);
            (void)putchar('\n');
        } else {
            draw(t, error);
        }
        drawn++;
        if (!t->live && fflush(stdout) != 0)
            break; /* the reader went away */
    }
    if (t->live)
        terminal_close(t);
    return CLI_OK;
}

int run_top(struct cli *c)
{
    struct top t = {.c = c, .interval_s = 1, .by = TOP_SITE};
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: poll must wake up */
    const char *term = getenv("TERM");
    int r = read_options(&t);

    if (r == 0)
        r = cli_connect(c);
    if (r != 0)
        return r;
    bool dumb = term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
    t.live = !dumb && t.frames == 0 && !c->json && isatty(STDIN_FILENO) != 0 &&
             isatty(STDOUT_FILENO) != 0;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    r = loop(&t);
    json_decref(t.before);
    json_decref(t.now);
    json_decref(t.queue);
    return r;
}
