/* ctl args: command lines to structs; and every row of the table fits the verbs it uses. */
#include "ctl/args.h"
#include "proto/verb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int parse(struct cli *c, const char *line)
{
    static char copy[256];
    static char *argv[32];
    int argc = 0;
    (void)snprintf(copy, sizeof copy, "mochila %s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    *c = (struct cli){.view = {.out = stdout}};
    return args_parse(c, argc, argv);
}

static void test_good_lines(void **state)
{
    static const struct {
        const char *line;
        const char *command;
        const char *args; /* "key=value ..." of the call */
    } cases[] = {
        {"status", "status", ""},
        {"--json status", "status", ""},
        {"status --json --socket /x", "status", ""},
        {"queue --by lane --site x -n 5", "queue", "by=lane site=x limit=5"},
        {"queue --by=lane --site=a=b", "queue", "by=lane site=a=b"},
        {"queue -n5", "queue", "limit=5"},
        {"-f a.yaml events -f", "events", ""},
        {"show ID --headers", "show", "id=ID headers=1"},
        {"show config x", "show config", ""},
        {"show keys", "show keys", ""},
        {"hold site x --why -- -odd", NULL, NULL},
        {"hold site -- -odd", "hold", "kind=site value=-odd"},
        {"why -", "why", "what=-"},
        {"retry now --lane 192.0.2.1", "retry", "lane=192.0.2.1"},
        {"drain --seconds 5", "drain", "seconds=5"},
        {"pool move x --to b --dry-run", "pool move", "pool=x to=b dry_run=1"},
        {"lane move --to b 192.0.2.1 --parallel 4", "lane move", "to=b lane=192.0.2.1 parallel=4"},
        {"move status a-17", "move status", "id=a-17"},
        {"node drain a --detach", "node drain", "node=a"},
        {"ledger --cluster", "ledger", "cluster=1"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct cli c;
        char args[256] = "";
        if (cases[i].command == NULL)
            continue;
        if (parse(&c, cases[i].line) != 0)
            fail_msg("refused: %s", cases[i].line);
        assert_string_equal(c.command->name, cases[i].command);
        for (unsigned a = 0; a < c.call.count; a++) {
            size_t n = strlen(args);
            (void)snprintf(args + n, sizeof args - n, "%s%s=%s", a > 0 ? " " : "",
                           c.call.args[a].key, c.call.args[a].value);
        }
        assert_string_equal(args, cases[i].args);
    }
    struct cli c;
    assert_int_equal(parse(&c, "-f a.yaml events -f"), 0);
    assert_string_equal(c.config, "a.yaml");
    assert_non_null(cli_given(&c, "follow"));
    assert_null(cli_given(&c, "lane"));
    assert_int_equal(parse(&c, "status -f b.yaml --json"), 0);
    assert_string_equal(c.config, "b.yaml");
    assert_true(c.json);
}

static void test_bad_lines(void **state)
{
    static const char *const lines[] = {
        "",          "statsu",     "queue --sit x",   "queue --site",    "queue --site a --site b",
        "show",      "show a b",   "show config a b", "status --json=1", "hold",
        "status -z", "events -fx", "--by lane",       "status --",       "top --once=1",
        "pool",      "pool move",  "pool x",          "move abort",      "node drain",
        "node x y",  "move",       "move status a b", "lane move",       "move abort a --dry-run",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        struct cli c;
        int r = parse(&c, lines[i]);
        bool fine = strcmp(lines[i], "status --") == 0; /* nothing after -- is nothing wrong */
        if (r != (fine ? 0 : CLI_USAGE))
            fail_msg("%s: %d", lines[i], r);
    }
}

/* What the table sends must be what the verb takes, or the node would refuse it. */
static void test_table_fits_the_verbs(void **state)
{
    size_t count;
    const struct command *commands = command_table(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        const struct command *c = &commands[i];
        const struct verb *v = c->verb != NULL ? verb_find(c->verb) : NULL;
        assert_non_null(c->run);
        assert_non_null(c->synopsis);
        assert_true(c->verb == NULL || v != NULL);
        assert_int_equal(c->run == run_verb, c->run == run_verb && c->render != NULL);
        for (size_t p = 0; p < CLI_POSITIONALS_MAX && c->positional[p] != NULL; p++)
            assert_true(strcmp(c->positional[p], "-") == 0 || verb_takes(v, c->positional[p]));
        for (size_t o = 0; o < CLI_OPTIONS_MAX && c->options[o].name != NULL; o++) {
            const struct cli_option *option = &c->options[o];
            if (option->arg != NULL && !verb_takes(v, option->arg))
                fail_msg("%s does not take %s", c->verb, option->arg);
            for (size_t other = 0; other < o; other++) {
                assert_string_not_equal(option->name, c->options[other].name);
                assert_true(option->letter == 0 || option->letter != c->options[other].letter);
            }
        }
    }
}

/* Whatever can be asked of a node can be asked with the command. */
static void test_every_verb_has_a_command(void **state)
{
    size_t verb_count;
    size_t count;
    const struct verb *verbs = verb_table(&verb_count);
    const struct command *commands = command_table(&count);
    (void)state;
    for (size_t v = 0; v < verb_count; v++) {
        bool found = strcmp(verbs[v].name, "version") == 0; /* `status` shows the node's */
        for (size_t i = 0; i < count; i++)
            found =
                found || (commands[i].verb != NULL && strcmp(commands[i].verb, verbs[v].name) == 0);
        if (!found)
            fail_msg("no command for %s", verbs[v].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_lines),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_table_fits_the_verbs),
        cmocka_unit_test(test_every_verb_has_a_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
