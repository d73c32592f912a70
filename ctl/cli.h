/*
 * cli - one run of the mochila command: what was asked, and what is shared by all commands.
 *
 * A command is a row of the table in command.c; parsing (args.c), asking (run.c) and rendering
 * (render_*.c) know rows, not names.
 */
#ifndef CTL_CLI_H
#define CTL_CLI_H

#include "ctl/client.h"
#include "ctl/view.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_ERROR = 1, /* the node refused, or the answer says something is wrong */
    CLI_USAGE = 2,
    CLI_NOT_RUNNING = 3,
    CLI_NOT_FOUND = 4,
    CLI_BAD_CONFIG = 78, /* EX_CONFIG of sysexits.h */
};

enum { CLI_POSITIONALS_MAX = 3, CLI_OPTIONS_MAX = 20 };

struct cli_option {
    const char *name; /* "--site" without the dashes */
    char letter;      /* short form, or 0 */
    const char *meta; /* "SITE"; NULL: a flag */
    const char *arg;  /* argument of the API that it sets (flags: to 1), or NULL: see cli_has */
    const char *help;
};

struct cli;
struct command {
    const char *name;                            /* one word, or two */
    const char *synopsis;                        /* after the name */
    const char *help;                            /* one line */
    const char *verb;                            /* of the API, or NULL */
    const char *positional[CLI_POSITIONALS_MAX]; /* arguments of the API, or "-": none of them */
    unsigned positional_min;
    struct cli_option options[CLI_OPTIONS_MAX];         /* ended by a NULL name */
    int (*run)(struct cli *c);                          /* returns an exit status */
    int (*render)(struct cli *c, const json_t *answer); /* for run_verb */
    void (*advise)(struct cli *c, const char *error);   /* after the node's refusal, or NULL */
};

struct cli {
    const struct command *command;
    struct call call;                       /* the arguments of the API, as given */
    const char *words[CLI_POSITIONALS_MAX]; /* positionals */
    unsigned word_count;
    const struct cli_option *given[CLI_OPTIONS_MAX]; /* options of the command, with their values */
    const char *values[CLI_OPTIONS_MAX];
    unsigned given_count;
    const char *socket;     /* --socket */
    const char *config;     /* -f */
    char *socket_of_config; /* malloc'd */
    bool json, help, version;
    struct view view;
    struct client *client;
};

/* The value of a command's option, "" for a flag, NULL when it was not given. */
const char *cli_given(const struct cli *c, const char *name);
/* `mochila: text` on stderr; returns `status`. */
int cli_fail(int status, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* command.c */
const struct command *command_table(size_t *count);
/* Finds "show config" before "show". *words: how many words the name took. NULL: unknown. */
const struct command *command_find(char *const *words, int count, int *taken);
void command_usage(const struct command *c, FILE *out);
void command_help(const struct command *c, FILE *out);
void command_list(FILE *out);

/* run.c: makes c->client, if there is none yet; 0 or an exit status, already explained. */
NODISCARD int cli_connect(struct cli *c);
/* Asks `call`; on success *out is to be freed. Otherwise the exit status, already explained. */
NODISCARD int cli_ask(struct cli *c, const struct call *call, struct reply *out);
/* Asks the command's verb with the given arguments and renders the answer (raw with --json). */
int run_verb(struct cli *c);
/* Says which workers are missing in an answer; true when some are. */
bool cli_note_missing(const json_t *answer);

#endif
