/* cmd_watch - cluster status, once or, with --watch, until ^C. */
#include "ctl/cmd.h"
#include "ctl/render.h"
#include "ctl/screen.h"

#include <stdlib.h>
#include <string.h>

enum { WATCH_MS = 1000 };

/* Only as many lines as the terminal has: the rest would scroll the block out of its place. */
static void cut_lines(char *text, unsigned rows)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n' && --rows == 0) {
            text[1] = '\0';
            return;
        }
    }
}

static int draw(struct cli *c, struct screen *s, const json_t *answer)
{
    char *text = NULL;
    size_t n = 0;
    struct view terminal = c->view;

    c->view = (struct view){.out = open_memstream(&text, &n), .width = terminal.width - 1};
    int r = c->view.out != NULL ? c->command->render(c, answer) : CLI_ERROR;
    if (c->view.out != NULL)
        (void)fclose(c->view.out);
    c->view = terminal;
    if (text != NULL) {
        cut_lines(text, screen_rows());
        screen_draw(s, text);
    }
    free(text);
    return r;
}

int run_cluster_status(struct cli *c)
{
    struct screen s = {.view = &c->view};
    struct reply reply;
    int r = 0;

    if (cli_given(c, "watch") == NULL)
        return run_verb(c);
    bool live = !c->json && screen_capable(&c->view);
    screen_catch();
    while (!screen_stopped()) {
        r = cli_ask(c, &c->call, &reply);
        if (r != 0)
            break;
        if (c->json)
            fputs(reply.body, c->view.out);
        else
            r = live ? draw(c, &s, reply.json) : c->command->render(c, reply.json);
        reply_free(&reply);
        if (!live)
            view_fmt(&c->view, "\n");
        /* A reader that went away (`| head`) ends the watching. */
        if (fflush(c->view.out) != 0)
            break;
        screen_wait(WATCH_MS);
    }
    screen_release();
    return r;
}
