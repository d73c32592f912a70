/* follow - see follow.h. */
#include "ctl/follow.h"

#include "ctl/move_view.h"
#include "ctl/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    POLL_MS = 250,
    LINE_MS = 1000,
    OUTAGE_MS_MAX = 60000, /* a restart with recovery may take that long */
    BEGIN_MS_MAX = 15000,  /* for a move that another node was asked to begin */
    BLOCK_LINES = 6,       /* of a move without its lanes, and their heading */
    LANES_MAX = 12,        /* rows of lanes, however tall the terminal is */
};

struct follow {
    struct cli *c;
    json_t *moves;
    struct screen screen;
    bool live;
    int64_t line_ms;   /* when the last line was printed */
    int64_t outage_ms; /* since when the node gives no answer; 0: it does */
    int64_t began_ms;
    double began_unix_s;
    char error[CLIENT_ERROR_BYTES];
};

static int64_t now_ms(void)
{
    struct timespec t;
    MUST(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool all_over(const json_t *moves)
{
    size_t i;
    const json_t *move;
    json_array_foreach(moves, i, move)
    {
        if (!move_view_over(move))
            return false;
    }
    return true;
}

static bool same_way(const json_t *a, const json_t *b)
{
    static const char *const fields[] = {"pool", "from", "to"};
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (strcmp(json_word(a, fields[i], ""), json_word(b, fields[i], "")) != 0)
            return false;
    }
    return true;
}

/*
 * A move without an id was only asked for: the node that has the lanes gives it one. It is the
 * newest that goes the same way and began with this command. NULL: not yet.
 */
static json_t *find_begun(const struct follow *f, const json_t *answer, const json_t *wanted)
{
    enum { CLOCKS_DIFFER_S = 5 };
    size_t i;
    json_t *move;
    json_array_foreach(json_object_get(answer, "moves"), i, move)
    {
        bool ours = json_number(move, "started", 0) >= f->began_unix_s - CLOCKS_DIFFER_S;
        if (ours && json_word(move, "id", "")[0] != '\0' && same_way(move, wanted))
            return move;
    }
    return NULL;
}

/* The move of this id in an answer, or NULL. */
static json_t *find_move(const json_t *answer, const char *id)
{
    size_t i;
    json_t *move;
    json_array_foreach(json_object_get(answer, "moves"), i, move)
    {
        if (strcmp(json_word(move, "id", ""), id) == 0)
            return move;
    }
    return NULL;
}

/*
 * 0 with the element replaced; -ENOENT when the node does not know it; -ESRCH when
 * another node does not begin it; else no answer.
 */
static int refresh(struct follow *f, size_t index)
{
    struct reply reply;
    struct call ask = {.verb = "moves"};
    char id[128], from[128]; /* copies: the element that holds them goes */

    const json_t *old = json_array_get(f->moves, index);
    (void)snprintf(id, sizeof id, "%s", json_word(old, "id", ""));
    (void)snprintf(from, sizeof from, "%s", json_word(old, "from", ""));
    if (id[0] != '\0')
        call_set(&ask, "id", id);
    else
        call_set(&ask, "node", from);
    int r = client_call(f->c->client, &ask, &reply, f->error);
    if (r < 0)
        return r;
    json_t *move = reply.status != 200 ? NULL
                   : id[0] != '\0'     ? find_move(reply.json, id)
                                       : find_begun(f, reply.json, old);
    if (move != NULL)
        (void)json_array_set(f->moves, index, move);
    else if (id[0] == '\0' && reply.status == 200 && now_ms() - f->began_ms < BEGIN_MS_MAX)
        r = 0; /* asked for, and not begun yet */
    else if (id[0] == '\0' && reply.status == 200)
        r = -ESRCH;
    else if (reply.status == 200 || reply.status == 404)
        r = -ENOENT;
    else
        r = -EPROTO;
    if (r == -ESRCH)
        (void)snprintf(f->error, sizeof f->error,
                       "node %s was asked for lanes of pool %s and has not begun: its mochila.log "
                       "tells why; the same command asks again",
                       json_word(old, "from", "?"), json_word(old, "pool", "?"));
    else if (r < 0)
        (void)snprintf(f->error, sizeof f->error, "%s",
                       json_word(reply.json, "error", "the node does not know this move"));
    reply_free(&reply);
    return r;
}

static int refresh_all(struct follow *f)
{
    int r = 0;
    for (size_t i = 0; i < json_array_size(f->moves) && r == 0; i++) {
        if (!move_view_over(json_array_get(f->moves, i)))
            r = refresh(f, i);
    }
    return r;
}

static void draw_block(struct follow *f)
{
    char *text = NULL;
    size_t n = 0, i;
    const json_t *move;
    struct view v = {.out = open_memstream(&text, &n), .width = f->screen.view->width - 1};
    unsigned rows = screen_rows();
    unsigned count = (unsigned)json_array_size(f->moves);
    unsigned each = count > 0 ? rows / count : rows;
    unsigned shown = 0;

    if (v.out == NULL)
        return;
    json_array_foreach(f->moves, i, move)
    {
        /* Of many moves those that are over give their lines to the others. */
        if (count > 1 && each < BLOCK_LINES && move_view_over(move))
            continue;
        if ((shown + 1) * BLOCK_LINES > rows && shown > 0)
            break;
        shown++;
        unsigned left = each > BLOCK_LINES + 1 ? each - BLOCK_LINES - 1 : 0;
        move_view_block(&v, move, left < LANES_MAX ? left : LANES_MAX);
    }
    if (f->outage_ms != 0)
        view_fmt(&v, "no answer from the node; waiting for it\n");
    (void)fclose(v.out);
    if (text != NULL)
        screen_draw(&f->screen, text);
    free(text);
}

static void put_lines(struct follow *f)
{
    const struct view *v = &f->c->view;
    size_t i;
    const json_t *move;
    if (f->c->json) {
        json_t *frame = json_pack("{s:O}", "moves", f->moves);
        (void)json_dumpf(frame, v->out, JSON_COMPACT);
        view_fmt(v, "\n");
        json_decref(frame);
    } else {
        json_array_foreach(f->moves, i, move) move_view_line(v, move);
    }
    (void)fflush(v->out);
}

static void show(struct follow *f, bool last)
{
    int64_t now = now_ms();
    if (f->live) {
        draw_block(f);
        return;
    }
    if (!last && now - f->line_ms < LINE_MS)
        return;
    f->line_ms = now;
    put_lines(f);
}

/* The node gives no answer: 0 = wait on, or an exit status. */
static int on_outage(struct follow *f, int r)
{
    if (r == -ENOENT)
        return cli_fail(CLI_NOT_FOUND, "%s", f->error);
    if (r == -ESRCH)
        return cli_fail(CLI_ERROR, "%s", f->error);
    if (f->outage_ms == 0) {
        f->outage_ms = now_ms();
        if (!f->live)
            (void)cli_fail(0, "%s: waiting for the node", f->error);
    }
    if (now_ms() - f->outage_ms < OUTAGE_MS_MAX)
        return 0;
    int status = r == -ECONNREFUSED || r == -EACCES ? CLI_NOT_RUNNING : CLI_ERROR;
    (void)cli_fail(status, "%s", f->error);
    follow_explain(&f->c->view, f->moves);
    return status;
}

/* ^C: no failure when nothing is left of the moves but deliveries that were open. */
static int detach(struct follow *f)
{
    int status = CLI_OK;
    size_t i;
    const json_t *move;
    if (!f->c->json)
        follow_explain(&f->c->view, f->moves);
    json_array_foreach(f->moves, i, move)
    {
        if (!move_view_good(move) && !move_view_across(move))
            status = CLI_ERROR;
    }
    return status;
}

/* 0 when all are over; -EINTR after ^C; else an exit status. */
static int loop(struct follow *f)
{
    for (;;) {
        int r = refresh_all(f);
        if (r < 0)
            r = on_outage(f, r);
        else
            f->outage_ms = 0;
        if (r != 0)
            return r;
        bool over = f->outage_ms == 0 && all_over(f->moves);
        show(f, over);
        if (over)
            return 0;
        if (!screen_stopped())
            screen_wait(POLL_MS);
        if (screen_stopped())
            return -EINTR;
    }
}

static int report(const struct follow *f)
{
    int status = CLI_OK;
    size_t i;
    const json_t *move;
    json_array_foreach(f->moves, i, move)
    {
        if (!f->c->json)
            move_view_report(&f->c->view, move);
        if (!move_view_good(move))
            status = CLI_ERROR;
    }
    return status;
}

int follow_moves(struct cli *c, json_t *moves)
{
    struct follow f = {.c = c,
                       .moves = moves,
                       .screen = {.view = &c->view},
                       .began_ms = now_ms(),
                       .began_unix_s = (double)time(NULL),
                       .live = !c->json && screen_capable(&c->view)};
    int r = cli_connect(c);
    if (r != 0)
        return r;
    screen_catch();
    r = loop(&f);
    screen_release();
    if (r != 0)
        return r == -EINTR ? detach(&f) : r;
    if (f.live)
        screen_draw(&f.screen, ""); /* the report takes the block's place */
    return report(&f);
}

void follow_explain(const struct view *v, const json_t *moves)
{
    size_t i;
    const json_t *move;
    json_array_foreach(moves, i, move)
    {
        if (move_view_over(move))
            continue;
        const char *id = json_word(move, "id", "");
        if (id[0] == '\0') {
            view_fmt(v, "node ");
            view_put(v, json_word(move, "from", "?"));
            view_fmt(v, " was asked to move lanes here; see mochila move status\n");
            continue;
        }
        view_fmt(v, "move ");
        view_put(v, id);
        view_fmt(v, " %s. See it again: mochila move status ",
                 move_view_across(move) ? "is across, open deliveries finish" : "goes on");
        view_put(v, id);
        view_fmt(v, " --follow");
        if (!move_view_across(move)) {
            view_fmt(v, "; end it: mochila move abort ");
            view_put(v, id);
        }
        view_fmt(v, "\n");
    }
}
