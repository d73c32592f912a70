/* command - the table of commands; see cli.h. */
#include "ctl/args.h"
#include "ctl/cmd.h"
#include "ctl/render.h"

#include <string.h>

#define FILTERS                                                                                   \
    {.name = "lane", .meta = "ADDRESS", .arg = "lane", .help = "only this lane"},                 \
        {.name = "site", .meta = "SITE", .arg = "site", .help = "only this destination site"},    \
        {.name = "tenant", .meta = "NAME", .arg = "tenant", .help = "only this tenant"},          \
        {.name = "domain",                                                                        \
         .meta = "DOMAIN",                                                                        \
         .arg = "domain",                                                                         \
         .help = "only this recipient domain"},                                                   \
        {.name = "state", .meta = "STATE", .arg = "state", .help = "ready, waiting, held, ..."},  \
    {                                                                                             \
        .name = "reason", .meta = "REASON", .arg = "reason", .help = "only with this reason code" \
    }
#define LIMIT                                                                                 \
    {                                                                                         \
        .name = "limit", .letter = 'n', .meta = "N", .arg = "limit", .help = "at most N rows" \
    }
#define CLUSTER_DIR                                                                        \
    {                                                                                      \
        .name = "dir", .meta = "DIR", .help = "where the files are (/etc/mochila/cluster)" \
    }
#define CLUSTER_DAYS                                                                          \
    {                                                                                         \
        .name = "days", .meta = "N", .help = "how long it is good (authority 3650, node 730)" \
    }
#define MOVE_OPTIONS                                                                       \
    {.name = "to", .meta = "NODE", .arg = "to", .help = "the node that takes over"},       \
        {.name = "dry-run", .arg = "dry_run", .help = "only say what would be moved"},     \
        {.name = "rate", .meta = "BYTES", .help = "copy at most so much a second: 20M"},   \
        {.name = "parallel", .meta = "N", .arg = "parallel", .help = "lanes at one time"}, \
    {                                                                                      \
        .name = "detach", .help = "do not follow the move"                                 \
    }
#define WHY                                            \
    {                                                  \
        .name = "why", .meta = "TEXT", .arg = "why",   \
        .help = "the reason, for those who look later" \
    }

static const struct command commands[] = {
    {.name = "check",
     .synopsis = "[FILE]",
     .help = "read a configuration and report every error",
     .positional = {"-"},
     .run = run_check},
    {.name = "show config",
     .synopsis = "[FILE]",
     .help = "every key with its value and where it came from",
     .positional = {"-"},
     .run = run_show_config},
    {.name = "show keys",
     .synopsis = "",
     .help = "every key that a configuration can have",
     .run = run_show_keys},
    {.name = "status",
     .synopsis = "",
     .help = "processes, lanes, holds and warnings",
     .verb = "status",
     .run = run_verb,
     .render = render_status},
    {.name = "top",
     .synopsis = "[--by lane|site|tenant] [--once] [--batch N]",
     .help = "rates and queues, live",
     .verb = "stats",
     .options = {{.name = "by", .meta = "WHAT", .help = "group the queue by lane, site or tenant"},
                 {.name = "once", .help = "print once and end"},
                 {.name = "batch", .letter = 'b', .meta = "N", .help = "print N times and end"},
                 {.name = "interval", .letter = 'i', .meta = "SECONDS", .help = "1 to 60"}},
     .run = run_top},
    {.name = "queue",
     .synopsis = "[--by lane|site|tenant|domain|reason|message] [filters] [--limit N]",
     .help = "what is queued, and why it waits",
     .verb = "queue",
     .options = {{.name = "by", .meta = "WHAT", .arg = "by", .help = "group by this (site)"},
                 FILTERS,
                 {.name = "id", .meta = "ID", .arg = "id", .help = "only this message"},
                 LIMIT},
     .run = run_verb,
     .render = render_queue},
    {.name = "why",
     .synopsis = "DOMAIN|ADDRESS|ID|LANE",
     .help = "why does this not move?",
     .verb = "why",
     .positional = {"what"},
     .positional_min = 1,
     .options = {LIMIT},
     .run = run_verb,
     .render = render_why},
    {.name = "show",
     .synopsis = "ID [--headers] [--body]",
     .help = "one message with its recipients",
     .verb = "show",
     .positional = {"id"},
     .positional_min = 1,
     .options = {{.name = "headers", .arg = "headers", .help = "with its header"},
                 {.name = "body", .arg = "body", .help = "with its body"}},
     .run = run_show,
     .render = render_show},
    {.name = "trace",
     .synopsis = "ID [--limit N]",
     .help = "all events of one message",
     .verb = "trace",
     .positional = {"id"},
     .positional_min = 1,
     .options = {LIMIT},
     .run = run_verb,
     .render = render_trace},
    {.name = "events",
     .synopsis = "[-f] [--event E] [--lane L] [--tenant T] [--id ID] [--limit N]",
     .help = "the newest events; -f waits for more",
     .verb = "events",
     .options =
         {{.name = "follow", .letter = 'f', .help = "wait for more"},
          {.name = "event", .meta = "EVENT", .arg = "event", .help = "delivered, deferred, ..."},
          {.name = "lane", .meta = "ADDRESS", .arg = "lane", .help = "only this lane"},
          {.name = "tenant", .meta = "NAME", .arg = "tenant", .help = "only this tenant"},
          {.name = "id", .meta = "ID", .arg = "id", .help = "only this message"},
          LIMIT},
     .run = run_events},
    {.name = "sites",
     .synopsis = "[filters] [--limit N]",
     .help = "destination sites with their limits and back-off",
     .verb = "sites",
     .options = {FILTERS, LIMIT},
     .run = run_verb,
     .render = render_sites},
    {.name = "lanes",
     .synopsis = "[filters] [--limit N]",
     .help = "lanes with their connections",
     .verb = "lanes",
     .options = {FILTERS, LIMIT},
     .run = run_verb,
     .render = render_lanes},
    {.name = "ledger",
     .synopsis = "[--cluster]",
     .help = "accepted = delivered + bounced + ... : does it balance?",
     .verb = "ledger",
     .options = {{.name = "cluster", .arg = "cluster", .help = "all nodes, and their sum"}},
     .run = run_verb,
     .render = render_ledger},
    {.name = "hold",
     .synopsis = "lane|tenant|site|message VALUE | all  [--why TEXT]",
     .help = "keep mail in the queue on purpose",
     .verb = "hold",
     .positional = {"kind", "value"},
     .positional_min = 1,
     .options = {WHY},
     .run = run_hold,
     .render = render_holds},
    {.name = "release",
     .synopsis = "lane|tenant|site|message VALUE | all  [--why TEXT]",
     .help = "end a hold",
     .verb = "release",
     .positional = {"kind", "value"},
     .positional_min = 1,
     .options = {WHY},
     .run = run_hold,
     .render = render_holds},
    {.name = "holds",
     .synopsis = "",
     .help = "what is on hold, since when and why",
     .verb = "holds",
     .run = run_verb,
     .render = render_holds},
    {.name = "retry",
     .synopsis = "ID | all | now [filters]",
     .help = "try waiting recipients now",
     .verb = "retry",
     .positional = {"-"},
     .options = {FILTERS},
     .run = run_retry},
    {.name = "delete",
     .synopsis = "ID | all | filters  [--preview | --yes] [--why TEXT]",
     .help = "remove recipients from the queue, after a preview",
     .verb = "delete",
     .positional = {"-"},
     .options = {FILTERS,
                 {.name = "preview", .help = "only show what would be deleted"},
                 {.name = "yes", .letter = 'y', .help = "do not ask"},
                 WHY},
     .run = run_delete},
    {.name = "reload",
     .synopsis = "",
     .help = "start a new generation with the configuration file as it is now",
     .verb = "reload",
     .run = run_verb,
     .render = render_done},
    {.name = "drain",
     .synopsis = "[--seconds N]",
     .help = "stop accepting and finish what is in flight",
     .verb = "drain",
     .options = {{.name = "seconds", .meta = "N", .arg = "seconds", .help = "give up after N"}},
     .run = run_verb,
     .render = render_leave},
    {.name = "stop",
     .synopsis = "",
     .help = "stop the node; the queue stays",
     .verb = "stop",
     .run = run_verb,
     .render = render_leave},
    {.name = "audit",
     .synopsis = "[--limit N]",
     .help = "what operators changed",
     .verb = "audit",
     .options = {LIMIT},
     .run = run_verb,
     .render = render_audit},
    {.name = "pool move",
     .synopsis = "NAME --to NODE [--dry-run] [--rate BYTES] [--parallel N] [--detach]",
     .help = "move a pool's lanes to another node, with their mail",
     .verb = "move",
     .positional = {"pool"},
     .positional_min = 1,
     .options = {MOVE_OPTIONS},
     .run = run_move,
     .advise = advise_move},
    {.name = "lane move",
     .synopsis = "ADDRESS --to NODE [--dry-run] [--rate BYTES] [--detach]",
     .help = "move one lane to another node, with its mail",
     .verb = "move",
     .positional = {"lane"},
     .positional_min = 1,
     .options = {MOVE_OPTIONS},
     .run = run_move,
     .advise = advise_move},
    {.name = "move status",
     .synopsis = "[ID] [--follow]",
     .help = "moves that are under way, and those before",
     .verb = "moves",
     .positional = {"id"},
     .options = {{.name = "follow", .help = "stay until it is over"}},
     .run = run_move_status,
     .render = render_moves},
    {.name = "move abort",
     .synopsis = "ID",
     .help = "end a move; lanes that are over stay there",
     .verb = "move_abort",
     .positional = {"id"},
     .positional_min = 1,
     .run = run_verb,
     .render = render_abort,
     .advise = advise_move},
    {.name = "node drain",
     .synopsis = "NODE [--dry-run] [--rate BYTES] [--detach]",
     .help = "move all lanes of a node to the others",
     .verb = "node_drain",
     .positional = {"node"},
     .positional_min = 1,
     .options = {{.name = "dry-run", .arg = "dry_run", .help = "only say what would be moved"},
                 {.name = "rate", .meta = "BYTES", .help = "copy at most so much a second: 20M"},
                 {.name = "detach", .help = "do not follow the moves"}},
     .run = run_drain,
     .advise = advise_move},
    {.name = "node undrain",
     .synopsis = "NODE [--detach]",
     .help = "bring the lanes of a drained node back",
     .verb = "node_undrain",
     .positional = {"node"},
     .positional_min = 1,
     .options = {{.name = "detach", .help = "do not follow the moves"}},
     .run = run_drain,
     .advise = advise_move},
    {.name = "cluster status",
     .synopsis = "[--watch] [--lanes]",
     .help = "the nodes, their lanes, and who owns them",
     .verb = "cluster",
     .options = {{.name = "watch", .help = "again and again, until ^C"},
                 {.name = "lanes", .help = "every lane, however many there are"}},
     .run = run_cluster_status,
     .render = render_cluster},
    {.name = "cluster init",
     .synopsis = "NAME [--dir DIR] [--days N]",
     .help = "make the authority of a new cluster",
     .positional = {"-"},
     .positional_min = 1,
     .options = {CLUSTER_DIR, CLUSTER_DAYS},
     .run = run_cluster_init},
    {.name = "cluster issue",
     .synopsis = "NODE [--dir DIR] [--days N] [--out FILE]",
     .help = "make key and certificate of a node, in one file",
     .positional = {"-"},
     .positional_min = 1,
     .options = {CLUSTER_DIR,
                 CLUSTER_DAYS,
                 {.name = "out", .meta = "FILE", .help = "where to (NODE.bundle.pem)"}},
     .run = run_cluster_issue},
    {.name = "cluster join",
     .synopsis = "FILE [--dir DIR]",
     .help = "install what `cluster issue` made for this node",
     .positional = {"-"},
     .positional_min = 1,
     .options = {CLUSTER_DIR},
     .run = run_cluster_join},
    {.name = "help",
     .synopsis = "[COMMAND]",
     .help = "explain a command",
     .positional = {"-", "-"},
     .run = run_help},
    {.name = "version", .synopsis = "", .help = "print the version", .run = run_version},
};

const struct command *command_table(size_t *count)
{
    *count = ARRAY_COUNT(commands);
    return commands;
}

/* True when the name's words are the next words given. */
static bool name_matches(const char *name, char *const *words, int count, int *taken)
{
    const char *space = strchr(name, ' ');
    *taken = 1;
    if (space == NULL)
        return strcmp(name, words[0]) == 0;
    *taken = 2;
    size_t n = (size_t)(space - name);
    return count > 1 && strlen(words[0]) == n && strncmp(name, words[0], n) == 0 &&
           strcmp(space + 1, words[1]) == 0;
}

const struct command *command_find(char *const *words, int count, int *taken)
{
    /* Names of two words stand before those of one in the table. */
    for (size_t i = 0; i < ARRAY_COUNT(commands) && count > 0; i++) {
        if (name_matches(commands[i].name, words, count, taken))
            return &commands[i];
    }
    return NULL;
}

void command_usage(const struct command *c, FILE *out)
{
    fprintf(out, "usage: mochila %s%s%s\n", c->name, c->synopsis[0] != '\0' ? " " : "",
            c->synopsis);
}

static void put_option(const struct cli_option *o, FILE *out)
{
    char left[64];
    (void)snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter != 0 ? "-" : "",
                   o->letter != 0 ? o->letter : ' ', o->letter != 0 ? ", " : "   ", o->name,
                   o->meta != NULL ? " " : "", o->meta != NULL ? o->meta : "");
    fprintf(out, "  %-24s %s\n", left, o->help);
}

void command_help(const struct command *c, FILE *out)
{
    size_t count;
    const struct cli_option *globals = args_globals(&count);
    command_usage(c, out);
    fprintf(out, "%s\n\n", c->help);
    for (size_t i = 0; i < CLI_OPTIONS_MAX && c->options[i].name != NULL; i++)
        put_option(&c->options[i], out);
    for (size_t i = 0; i < count; i++)
        put_option(&globals[i], out);
}

void command_list(FILE *out)
{
    size_t count;
    const struct cli_option *globals = args_globals(&count);
    fputs("usage: mochila [options] COMMAND ...\n\n", out);
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
        fprintf(out, "  %-14s %s\n", commands[i].name, commands[i].help);
    fputs("\n", out);
    for (size_t i = 0; i < count; i++)
        put_option(&globals[i], out);
    fputs("\nThe socket is that of --socket, of the file given with -f, $MOCHILA_SOCKET, or "
          "/run/mochila/api.sock.\n`mochila help COMMAND` explains one.\n",
          out);
}

int run_help(struct cli *c)
{
    char *words[2] = {(char *)(uintptr_t)c->words[0], (char *)(uintptr_t)c->words[1]};
    int taken = 0;
    if (c->word_count == 0) {
        command_list(stdout);
        return CLI_OK;
    }
    const struct command *which = command_find(words, (int)c->word_count, &taken);
    if (which == NULL || (unsigned)taken != c->word_count)
        return cli_fail(CLI_USAGE, "there is no command \"%s\": `mochila help` lists them",
                        c->words[c->word_count - 1]);
    command_help(which, stdout);
    return CLI_OK;
}

int run_version(struct cli *c)
{
    (void)c;
    puts("mochila " MOCHILA_VERSION);
    return CLI_OK;
}
