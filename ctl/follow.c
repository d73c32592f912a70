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

/* 0 with the element replaced; -ENOENT when the node does not know it; else no answer. */
static int refresh(struct follow *f, size_t index)
{
    struct reply reply;
    struct call ask = {.verb = "moves"};
    char id[128]; /* a copy: the element that holds it goes */

    (void)snprintf(id, sizeof id, "%s", json_word(json_array_get(f->moves, index), "id", ""));
    call_set(&ask, "id", id);
    int r = client_call(f->c->client, &ask, &reply, f->error);
    if (r < 0)
        return r;
    json_t *move = reply.status == 200 ? find_move(reply.json, id) : NULL;
    if (move != NULL)
        (void)json_array_set(f->moves, index, move);
    else if (reply.status == 200 || reply.status == 404)
        r = -ENOENT;
    else
        r = -EPROTO;
    if (r < 0)
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
        if (screen_stopped()) {
            if (!f->c->json)
                follow_explain(&f->c->view, f->moves);
            return CLI_ERROR;
        }
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
                       .live = !c->json && screen_capable(&c->view)};
    int r = cli_connect(c);
    if (r != 0)
        return r;
    screen_catch();
    r = loop(&f);
    screen_release();
    if (r != 0)
        return r;
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
        const char *id = json_word(move, "id", "?");
        view_fmt(v, "move ");
        view_put(v, id);
        view_fmt(v, " goes on. See it again: mochila move status ");
        view_put(v, id);
        view_fmt(v, " --follow; end it: mochila move abort ");
        view_put(v, id);
        view_fmt(v, "\n");
    }
}
