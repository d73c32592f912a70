/* cmd_events - the newest events, and with -f those that come. */
#include "ctl/cmd.h"
#include "ctl/render.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 500 };

static void print_rows(struct cli *c, const json_t *answer)
{
    char skipped[VIEW_NUMBER_BYTES];
    size_t i;
    const json_t *row;
    double n = json_number(answer, "skipped_bytes", 0);

    if (n > 0)
        (void)cli_fail(CLI_OK, "too many events to follow: %s skipped", unit_bytes(n, skipped));
    json_array_foreach(json_object_get(answer, "rows"), i, row)
    {
        if (c->json) {
            (void)json_dumpf(row, stdout, JSON_COMPACT);
            (void)putchar('\n');
        } else {
            render_event(&c->view, row);
        }
    }
}

int run_events(struct cli *c)
{
    bool follow = cli_given(c, "follow") != NULL;
    char *cursor = NULL;
    struct reply reply;
    int r;

    for (;;) {
        if (cursor != NULL)
            call_set(&c->call, "cursor", cursor);
        r = cli_ask(c, &c->call, &reply);
        if (r != 0)
            break;
        print_rows(c, reply.json);
        free(cursor);
        cursor = strdup(json_word(reply.json, "cursor", ""));
        reply_free(&reply);
        /* A reader that went away (`| head`) ends a follower. */
        if (!follow || cursor == NULL || fflush(stdout) != 0)
            break;
        struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
        (void)nanosleep(&pause, NULL);
    }
    free(cursor);
    return r;
}
