/*
 * mochila - the command line of a node: a client of its JSON API.
 *
 * Exit status: 0 done, 1 the node refused or something is wrong, 2 usage, 3 no node answers, 4 not
 * found, 78 the configuration has errors.
 */
#include "ctl/args.h"
#include "ctl/cmd.h"

#include <stdlib.h>

static int run(struct cli *c, int argc, char **argv)
{
    int r = args_parse(c, argc, argv);
    if (r != 0)
        return r;
    if (c->version)
        return run_version(c);
    if (c->help && c->command == NULL)
        command_list(stdout);
    else if (c->help)
        command_help(c->command, stdout);
    if (c->help)
        return CLI_OK;
    return c->command->run(c);
}

int main(int argc, char **argv)
{
    struct cli c = {.view = view_of_stdout()};
    int status = run(&c, argc, argv);

    client_destroy(&c.client);
    free(c.socket_of_config);
    /* A full disk behind `mochila ... > file` must not look like success. */
    if (fflush(stdout) != 0 && status == CLI_OK)
        status = CLI_ERROR;
    return status;
}
