/* mochila-bench: the table of subcommands. */
#include "base/suggest.h"
#include "bench/direct.h"
#include "bench/verdict.h"
#include "bench/options.h"
#include "bench/runner.h"
#include "bench/sink.h"
#include "bench/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct subcommand {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *summary;
};

static const struct subcommand subcommands[] = {
    {"source", source_main, "send load to an SMTP server"},
    {"sink", sink_main, "accept mail, answer as told, count by identity"},
    {"run", run_main, "start a node, load it, count at the sink: one table"},
    {"compare", compare_main, "the same work for our node and for Postfix, in turn"},
    {"figures", figures_main, "all scenarios beside the project's goals, as Markdown"},
    {"direct", direct_main, "source against sink: what the generator itself can do"},
    {"verdict", verdict_main, "hold the results of source and sink against each other"},
};

static void help(FILE *to)
{
    fprintf(to, "mochila-bench %s - load generator and sink for SMTP\n\n", MOCHILA_VERSION);
    fprintf(to, "Usage: mochila-bench COMMAND [--OPTION VALUE]...\n\nCommands:\n");
    for (size_t i = 0; i < ARRAY_COUNT(subcommands); i++)
        fprintf(to, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    fprintf(to, "\nmochila-bench COMMAND --help tells more.\n");
}

/* Thousands of connections: as many descriptors as this user may have. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Says what may have been meant; the exit status. */
static int unknown(const char *word)
{
    const char *names[ARRAY_COUNT(subcommands)];

    for (size_t i = 0; i < ARRAY_COUNT(subcommands); i++)
        names[i] = subcommands[i].name;
    const char *near = suggest_nearest(word, names, ARRAY_COUNT(subcommands));
    fprintf(stderr, "mochila-bench: unknown command \"%s\"", word);
    if (near != NULL)
        fprintf(stderr, "; did you mean %s?", near);
    fprintf(stderr, "\nTry: mochila-bench --help\n");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mochila-bench %s\n", MOCHILA_VERSION);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < ARRAY_COUNT(subcommands); i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            raise_descriptors();
            return subcommands[i].main(argc - 1, argv + 1);
        }
    }
    return unknown(argv[1]);
}
