/*
 * cmd_move - pool move, lane move, node drain and undrain, move status.
 *
 * An order is one question to the node; what follows is only looking (follow.c). Names are judged
 * by the node, since it alone knows them; when it refuses one, the nearest is suggested.
 */
#include "ctl/cmd.h"
#include "ctl/follow.h"
#include "ctl/move_view.h"
#include "ctl/render.h"

#include "base/net.h"
#include "base/suggest.h"
#include "config/number.h"

#include <stdlib.h>
#include <string.h>

enum { PARALLEL_MAX = 1024, NAMES_SHOWN = 8, RATE_BYTES = 24 };
#define RATE_MIN (64ULL << 10)
#define RATE_MAX (64ULL << 30)

static int usage(struct cli *c)
{
    command_usage(c->command, stderr);
    return CLI_USAGE;
}

/* Bytes per second, as the API takes them; `out` must outlive the call. */
static int read_rate(struct cli *c, char out[RATE_BYTES])
{
    uint64_t rate = 0;
    const struct config_key key = {.min = RATE_MIN, .max = RATE_MAX, .bytes = sizeof rate};
    const char *given = cli_given(c, "rate");
    if (given == NULL)
        return 0;
    if (strcmp(given, "0") != 0 && number_parse_size(&key, given, &rate) < 0) {
        (void)cli_fail(CLI_USAGE,
                       "--rate is bytes per second, from 64K to 64G, or 0 for no limit, not \"%s\"",
                       given);
        return usage(c);
    }
    (void)snprintf(out, RATE_BYTES, "%llu", (unsigned long long)rate);
    call_set(&c->call, "rate", out);
    return 0;
}

static int check_parallel(struct cli *c)
{
    const char *given = cli_given(c, "parallel");
    uint64_t n;
    if (given == NULL || (span_to_u64(span_str(given), &n) == 0 && n >= 1 && n <= PARALLEL_MAX))
        return 0;
    (void)cli_fail(CLI_USAGE, "--parallel is a number of lanes, from 1 to %d, not \"%s\"",
                   PARALLEL_MAX, given);
    return usage(c);
}

/* The moves of an answer as an array of its own: `moves`, or the one `move`. */
static json_t *moves_of(const json_t *answer)
{
    const json_t *list = json_object_get(answer, "moves");
    json_t *one = json_object_get(answer, "move");
    json_t *moves = json_array();
    size_t i;
    json_t *move;
    json_array_foreach(list, i, move)
    {
        if (json_is_object(move))
            (void)json_array_append(moves, move);
    }
    if (json_is_object(one))
        (void)json_array_append(moves, one);
    return moves;
}

static int put_plan(struct cli *c, const json_t *moves)
{
    int status = CLI_OK;
    size_t i;
    const json_t *move;
    json_array_foreach(moves, i, move)
    {
        if (!c->json)
            move_view_plan(&c->view, move);
        if (move_view_over(move) && !move_view_good(move))
            status = CLI_ERROR;
    }
    return status;
}

/* Orders, and stays with what was begun unless told otherwise. */
static int order(struct cli *c)
{
    struct reply reply;
    int r = cli_ask(c, &c->call, &reply);
    if (r != 0)
        return r;
    bool dry = cli_given(c, "dry-run") != NULL;
    bool detach = cli_given(c, "detach") != NULL;
    json_t *moves = moves_of(reply.json);
    bool none = json_array_size(moves) == 0;

    if (c->json && (dry || detach || none))
        fputs(reply.body, c->view.out);
    if (none && !c->json) {
        view_put(&c->view, json_word(reply.json, "text", "nothing is to be moved"));
        view_fmt(&c->view, "\n");
    } else if (dry) {
        r = put_plan(c, moves);
    } else if (detach) {
        if (!c->json)
            follow_explain(&c->view, moves);
    } else if (!none) {
        r = follow_moves(c, moves);
    }
    json_decref(moves);
    reply_free(&reply);
    return r;
}

int run_move(struct cli *c)
{
    char rate[RATE_BYTES];
    struct ip address;
    const char *to = cli_given(c, "to");
    bool lane = strcmp(c->command->positional[0], "lane") == 0;

    if (to == NULL || to[0] == '\0') {
        (void)cli_fail(CLI_USAGE, "%s to which node? --to NODE", c->command->name);
        return usage(c);
    }
    if (lane && ip_parse(span_str(c->words[0]), &address) < 0) {
        (void)cli_fail(CLI_USAGE,
                       "\"%s\" is not an IPv4 or IPv6 address: a lane is named by its "
                       "address (`mochila cluster status`)",
                       c->words[0]);
        return usage(c);
    }
    int r = read_rate(c, rate);
    if (r == 0)
        r = check_parallel(c);
    return r == 0 ? order(c) : r;
}

int run_drain(struct cli *c)
{
    char rate[RATE_BYTES];
    int r = read_rate(c, rate);
    return r == 0 ? order(c) : r;
}

int run_move_status(struct cli *c)
{
    struct reply reply;
    if (cli_given(c, "follow") == NULL)
        return run_verb(c);
    if (c->word_count == 0) {
        (void)cli_fail(CLI_USAGE, "follow which move? `mochila move status` lists them");
        return usage(c);
    }
    int r = cli_ask(c, &c->call, &reply);
    if (r != 0)
        return r;
    json_t *moves = moves_of(reply.json);
    if (json_array_size(moves) > 0)
        r = follow_moves(c, moves);
    else
        r = cli_fail(CLI_NOT_FOUND, "there is no move %s", c->words[0]);
    json_decref(moves);
    reply_free(&reply);
    return r;
}

/* An indented line below the node's own text. */
static void put_hint(const char *before, const char *text, const char *after)
{
    struct view v = {.out = stderr};
    fprintf(stderr, "  %s ", before);
    view_put(&v, text);
    fprintf(stderr, "%s\n", after);
}

/* Distinct texts of a field, for people; the few that there may be. */
static void list_names(const char *const *names, size_t count)
{
    struct view v = {.out = stderr};
    fputs("  there are ", stderr);
    for (size_t i = 0, shown = 0; i < count; i++) {
        bool again = false;
        for (size_t k = 0; k < i && !again; k++)
            again = strcmp(names[i], names[k]) == 0;
        if (again)
            continue;
        if (shown == NAMES_SHOWN) {
            fputs(", ...", stderr);
            break;
        }
        fputs(shown++ > 0 ? ", " : "", stderr);
        view_put(&v, names[i]);
    }
    fputc('\n', stderr);
}

/* A kind of names: the field of these rows. */
struct names {
    const char *what;
    const json_t *rows;
};

/*
 * True when `word` is none of the names: then it says which there are. That the word is unknown is
 * said only when the node's own text does not.
 */
static bool explain_name(const struct names *n, const char *word, const char *error)
{
    size_t i, count = 0;
    const json_t *row;
    bool known = false;
    const char **names = calloc(json_array_size(n->rows) + 1, sizeof *names);

    if (names == NULL || word == NULL)
        goto out;
    json_array_foreach(n->rows, i, row)
    {
        const char *name = json_word(row, n->what, "");
        if (name[0] != '\0')
            names[count++] = name;
        known = known || strcmp(name, word) == 0;
    }
    if (known || count == 0)
        goto out;
    const char *near = suggest_nearest(word, names, count);
    if (strstr(error, word) == NULL)
        (void)cli_fail(0, "there is no %s %s", n->what, word);
    if (near == NULL)
        list_names(names, count);
    else
        put_hint("did you mean", near, "?");
    free(names);
    return true;
out:
    free(names);
    return false;
}

/* Names that the cluster does not know. The node may be in none, or answer nothing now. */
static bool explain_names(struct cli *c, const char *error)
{
    char ignored[CLIENT_ERROR_BYTES];
    struct call ask = {.verb = "cluster"};
    struct reply reply;
    const char *node = call_get(&c->call, "to");

    if (node == NULL)
        node = call_get(&c->call, "node");
    if (client_call(c->client, &ask, &reply, ignored) < 0)
        return false;
    const struct names nodes = {"node", json_object_get(reply.json, "nodes")};
    const struct names pools = {"pool", json_object_get(reply.json, "lanes")};
    const struct names lanes = {"lane", pools.rows};
    bool said = explain_name(&nodes, node, error);
    said = explain_name(&pools, call_get(&c->call, "pool"), error) || said;
    said = explain_name(&lanes, call_get(&c->call, "lane"), error) || said;
    reply_free(&reply);
    return said;
}

void advise_move(struct cli *c, const char *error)
{
    if (strstr(error, "did you mean") != NULL || explain_names(c, error))
        return;
    const char *what = move_view_advice(error);
    if (what != NULL)
        put_hint("what to do:", what, "");
}
