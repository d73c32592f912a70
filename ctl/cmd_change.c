/*
 * cmd_change - show, and what changes the queue: hold, release, retry, delete.
 *
 * A change that could concern every message must be asked for in words ("all"), never follow from
 * something left out.
 */
#include "ctl/cmd.h"
#include "ctl/render.h"

#include "base/id.h"
#include "base/suggest.h"
#include "proto/verb.h"

#include <string.h>
#include <unistd.h>

static int usage(struct cli *c)
{
    command_usage(c->command, stderr);
    return CLI_USAGE;
}

int run_show(struct cli *c)
{
    /* The node shows the header unless told not to; here it is asked for. */
    if (cli_given(c, "headers") == NULL)
        call_set(&c->call, "headers", "0");
    return run_verb(c);
}

int run_hold(struct cli *c)
{
    static const char *const scopes[] = {"lane", "tenant", "site", "message", "all"};
    const char *scope = c->words[0];
    bool known = false;

    for (size_t i = 0; i < ARRAY_COUNT(scopes); i++)
        known = known || strcmp(scope, scopes[i]) == 0;
    if (!known) {
        const char *near = suggest_nearest(scope, scopes, ARRAY_COUNT(scopes));
        char hint[64] = "";
        if (near != NULL)
            (void)snprintf(hint, sizeof hint, ": did you mean %s?", near);
        (void)cli_fail(CLI_USAGE, "\"%s\" is no scope%s", scope, hint);
        return usage(c);
    }
    bool all = strcmp(scope, "all") == 0;
    if (all && c->word_count > 1) {
        (void)cli_fail(CLI_USAGE, "%s all takes no value", c->command->name);
        return usage(c);
    }
    if (!all && c->word_count < 2) {
        (void)cli_fail(CLI_USAGE, "which %s?", scope);
        return usage(c);
    }
    return run_verb(c);
}

static bool has_filter(const struct cli *c)
{
    for (unsigned i = 0; i < c->call.count; i++) {
        if (verb_arg_is_filter(c->call.args[i].key))
            return true;
    }
    return false;
}

/* `ID`, `all` (and `now`, which retry allows), or filters. 0 or CLI_USAGE. */
static int read_selection(struct cli *c, bool now_is_all)
{
    struct msg_id id;
    const char *word = c->words[0];
    bool filtered = has_filter(c);

    if (word == NULL && filtered)
        return 0;
    if (word == NULL) {
        (void)cli_fail(CLI_USAGE, "%s what? Give an id, a filter such as --site, or all",
                       c->command->name);
        return usage(c);
    }
    bool now = now_is_all && strcmp(word, "now") == 0;
    if (now && filtered)
        return 0;
    if (now || strcmp(word, "all") == 0) {
        if (filtered) {
            (void)cli_fail(CLI_USAGE, "either all or a filter, not both");
            return usage(c);
        }
        call_set(&c->call, "all", "1");
        return 0;
    }
    if (id_parse(span_str(word), &id) < 0) {
        (void)cli_fail(CLI_USAGE, "\"%s\" is neither a message id (%d letters and digits) nor all",
                       word, ID_TEXT);
        return usage(c);
    }
    call_set(&c->call, "id", word);
    return 0;
}

int run_retry(struct cli *c)
{
    struct reply reply;
    char number[VIEW_NUMBER_BYTES];
    int r = read_selection(c, true);
    if (r == 0)
        r = cli_ask(c, &c->call, &reply);
    if (r != 0)
        return r;
    if (c->json)
        fputs(reply.body, stdout);
    else
        view_fmt(&c->view, "%s recipients will be tried now\n",
                 unit_count(json_number(reply.json, "changed", 0), number));
    if (cli_note_missing(reply.json))
        r = CLI_ERROR;
    reply_free(&reply);
    return r;
}

/* y or yes from the terminal; everything else is no. */
static bool confirm(double n)
{
    char line[16] = "";
    char number[VIEW_NUMBER_BYTES];
    fprintf(stderr, "Delete %s recipients for good, without a bounce? [y/N] ",
            unit_count(n, number));
    if (fgets(line, sizeof line, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return strcmp(line, "y") == 0 || strcmp(line, "Y") == 0 || strcmp(line, "yes") == 0;
}

/* Shows what would go and asks. 0 = go on, 1 = nothing to do, else an exit status. */
static int preview(struct cli *c, bool *go)
{
    struct call ask = c->call;
    struct reply reply;
    char number[VIEW_NUMBER_BYTES];

    *go = false;
    call_set(&ask, "preview", "1");
    int r = cli_ask(c, &ask, &reply);
    if (r != 0)
        return r;
    double n = json_number(reply.json, "matched", 0);
    bool partial = cli_note_missing(reply.json);
    if (c->json) {
        fputs(reply.body, stdout);
    } else if (n > 0) {
        const json_t *sample = json_object_get(reply.json, "sample");
        render_messages(&c->view, sample);
        if (n > (double)json_array_size(sample))
            view_fmt(&c->view, "... %s in all\n", unit_count(n, number));
    }
    reply_free(&reply);
    if (!(n > 0))
        return cli_fail(CLI_NOT_FOUND, "nothing matches: nothing is deleted");
    if (cli_given(c, "preview") != NULL)
        return partial ? CLI_ERROR : CLI_OK;
    (void)fflush(stdout);
    if (isatty(STDIN_FILENO) == 0)
        return cli_fail(CLI_USAGE, "nothing is deleted: say --yes when no one can be asked");
    *go = confirm(n);
    return *go ? CLI_OK : cli_fail(CLI_ERROR, "nothing is deleted");
}

int run_delete(struct cli *c)
{
    struct reply reply;
    char number[VIEW_NUMBER_BYTES];
    bool go = cli_given(c, "yes") != NULL;
    int r = read_selection(c, false);

    if (r != 0)
        return r;
    if (go && cli_given(c, "preview") != NULL) {
        (void)cli_fail(CLI_USAGE, "either --preview or --yes");
        return usage(c);
    }
    if (!go) {
        r = preview(c, &go);
        if (!go)
            return r;
    }
    r = cli_ask(c, &c->call, &reply);
    if (r != 0)
        return r;
    if (c->json)
        fputs(reply.body, stdout);
    else
        view_fmt(&c->view, "%s recipients deleted\n",
                 unit_count(json_number(reply.json, "deleted", 0), number));
    if (cli_note_missing(reply.json))
        r = CLI_ERROR;
    reply_free(&reply);
    return r;
}
