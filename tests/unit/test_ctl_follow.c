/* ctl follow: orders about moves and the live follow, against a server that answers what the test
 * says. */
#include "ctl/args.h"
#include "ctl/follow.h"

#include "tests/unit/ctl_move_support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SCRIPT_MAX = 8, SEEN_BYTES = 4096 };

struct server {
    char path[64];
    int listener;
    pthread_t thread;
    struct {
        int status; /* 0: hang up without an answer */
        const char *body;
    } script[SCRIPT_MAX];
    unsigned steps;
    char seen[SEEN_BYTES]; /* "GET /v1/...\nPOST /v1/move pool=x&to=b\n" */
    bool interrupt;        /* ^C after the last answer */
};

static void note_request(struct server *s, const char *request)
{
    size_t n = strlen(s->seen);
    const char *end = strstr(request, " HTTP/1.1");
    const char *body = strstr(request, "\r\n\r\n");
    bool post = strncmp(request, "POST", 4) == 0;
    (void)snprintf(s->seen + n, sizeof s->seen - n, "%.*s%s%s\n", (int)(end - request), request,
                   post ? " " : "", post && body != NULL ? body + 4 : "");
}

static void answer_one(struct server *s, unsigned step)
{
    char request[4096] = "";
    char head[256];
    size_t n = 0;
    int fd = accept(s->listener, NULL, NULL);
    const char *body = s->script[step].body;
    while (fd >= 0 && n < sizeof request - 1) {
        ssize_t r = recv(fd, request + n, sizeof request - 1 - n, 0);
        if (r <= 0)
            break;
        n += (size_t)r;
        request[n] = '\0';
        const char *end = strstr(request, "\r\n\r\n");
        const char *length = strstr(request, "Content-Length: ");
        size_t more = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
        if (end != NULL && n >= (size_t)(end + 4 - request) + more)
            break;
    }
    note_request(s, request);
    if (s->script[step].status != 0) {
        int k = snprintf(head, sizeof head,
                         "HTTP/1.1 %d x\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                         s->script[step].status, strlen(body));
        (void)send(fd, head, (size_t)k, MSG_NOSIGNAL);
        (void)send(fd, body, strlen(body), MSG_NOSIGNAL);
    }
    (void)close(fd);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    for (unsigned i = 0; i < s->steps; i++)
        answer_one(s, i);
    if (s->interrupt)
        (void)kill(getpid(), SIGINT);
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)snprintf(s->path, sizeof s->path, "/tmp/test_ctl_follow.%d", (int)getpid());
    (void)unlink(s->path);
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", s->path);
    while (s->steps < SCRIPT_MAX && s->script[s->steps].body != NULL)
        s->steps++;
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    /* A command that asked less often than the test expects must not hang it. */
    (void)shutdown(s->listener, SHUT_RDWR);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    (void)close(s->listener);
    (void)unlink(s->path);
}

/* Runs `mochila LINE` against the script; the output is to be freed. */
static int run_line(struct server *s, const char *line, unsigned width, char **out)
{
    static char copy[256];
    char *argv[32];
    size_t size = 0;
    int argc = 0;
    (void)snprintf(copy, sizeof copy, "mochila %s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    struct cli c = {.view = {.out = open_memstream(out, &size), .width = width}};
    server_start(s);
    int r = args_parse(&c, argc, argv);
    c.socket = s->path;
    if (r == 0)
        r = c.command->run(&c);
    client_destroy(&c.client);
    server_stop(s);
    assert_int_equal(fclose(c.view.out), 0);
    return r;
}

static void test_follow_prints_lines_and_a_report(void **state)
{
    char *out;
    struct server s = {.script = {
                           {200, "{\"move\":" MOVE("preparing", "0", "") ",\"dry_run\":false}"},
                           {200, "{\"moves\":[" MOVE("copying", "0", "") "]}"},
                           {200, "{\"moves\":[" MOVE("moving", "1", "") "]}"},
                           {200, "{\"moves\":[{\"id\":\"other\"}," MOVE("done", "3", "") "]}"},
                       }};
    (void)state;
    assert_int_equal(run_line(&s, "pool move x --to b --rate 20M --parallel 4", 0, &out), CLI_OK);
    assert_string_equal(s.seen, "POST /v1/move pool=x&to=b&parallel=4&rate=20971520\n"
                                "GET /v1/moves?id=a-17\nGET /v1/moves?id=a-17\n"
                                "GET /v1/moves?id=a-17\n");
    assert_null(strchr(out, '\033'));
    MUST_HAVE(out, "a-17  copying  lanes 0/3", "a-17  done  lanes 3/3", "move a-17   pool x",
              "in doubt  4\n");
}

static void test_follow_redraws_on_a_terminal(void **state)
{
    char *out;
    struct server s = {.script = {
                           {200, "{\"moves\":[" MOVE("preparing", "0", "") "]}"},
                           {200, "{\"moves\":[" MOVE("copying", "0", "") "]}"},
                           {200, "{\"moves\":[" MOVE("done", "3", "") "]}"},
                       }};
    (void)state;
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    assert_int_equal(run_line(&s, "node drain a", 60, &out), CLI_OK);
    assert_non_null(strstr(s.seen, "POST /v1/node_drain node=a\n"));
    /* The block of 4 lines, a heading and 2 lanes is gone over again, and at last removed. */
    assert_non_null(strstr(out, "copying"));
    assert_non_null(strstr(out, "\033[7A\r"));
    for (char *p = out, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
        *end = '\0';
        char *erase = strstr(p, "\033[K");
        char *from = strrchr(p, '\r') != NULL ? strrchr(p, '\r') + 1 : p;
        if (erase != NULL) {
            *erase = '\0';
            assert_true(view_columns(from) < 60);
            *erase = '\033';
        }
        *end = '\n';
    }
    MUST_HAVE(out, "\033[J", "pause     p50 3.1ms");
}

static void test_follow_tells_of_failure(void **state)
{
    static const char *const ends[] = {
        "{\"moves\":[" MOVE("failed", "1", "\"reason\":\"disk of b is full\",") "]}",
        "{\"moves\":[" MOVE("aborted", "0", "") "]}",
        "{\"moves\":[" MOVE("refused", "0", "\"reason\":\"no driver\",") "]}",
        "{\"moves\":[" MOVE("done", "2", "") "]}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++) {
        char *out;
        struct server s = {
            .script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"}, {200, ends[i]}}};
        assert_int_equal(run_line(&s, "lane move 192.0.2.1 --to b", 0, &out), CLI_ERROR);
        assert_non_null(strstr(s.seen, "POST /v1/move lane=192.0.2.1&to=b\n"));
        MUST_HAVE(out, "stay on a");
    }
    char *out;
    struct server s = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"},
                                  {404, "{\"error\":\"there is no such move\"}"}}};
    assert_int_equal(run_line(&s, "pool move x --to b", 0, &out), CLI_NOT_FOUND);
    free(out);
}

/* The node restarts under a follower: it waits, and sees the end. */
static void test_follow_outlives_a_restart(void **state)
{
    char *out;
    struct server s = {.script = {
                           {200, "{\"moves\":[" MOVE("copying", "0", "") "]}"},
                           {0, ""},
                           {503, "{\"error\":\"the master is away\"}"},
                           {200, "{\"moves\":[" MOVE("done", "3", "") "]}"},
                       }};
    (void)state;
    assert_int_equal(run_line(&s, "move status a-17 --follow", 0, &out), CLI_OK);
    MUST_HAVE(out, "in doubt  4\n");
}

static void test_interrupt_detaches(void **state)
{
    char *out;
    struct server s = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"},
                                  {200, "{\"moves\":[" MOVE("copying", "0", "") "]}"}},
                       .interrupt = true};
    (void)state;
    assert_int_equal(run_line(&s, "pool move x --to b", 0, &out), CLI_ERROR);
    assert_null(strstr(s.seen, "abort"));
    MUST_HAVE(out, "move a-17 goes on", "mochila move status a-17", "mochila move abort a-17");
}

/* When every lane is across, what was ordered is done: ^C is no failure then. */
static void test_interrupt_after_the_last_lane(void **state)
{
    char *out;
    struct server s = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"},
                                  {200, "{\"moves\":[" MOVE("moving", "3", "") "]}"}},
                       .interrupt = true};
    (void)state;
    assert_int_equal(run_line(&s, "pool move x --to b", 0, &out), CLI_OK);
    assert_null(strstr(out, "abort"));
    MUST_HAVE(out, "move a-17 is across, open deliveries finish");
}

/* An undrain asks other nodes, and learns the ids of the moves when they begin. */
static void test_a_move_that_another_node_begins(void **state)
{
    static const char asked[] =
        "{\"moves\":[{\"id\":\"\",\"pool\":\"x\",\"from\":\"a\",\"to\":\"b\","
        "\"state\":\"preparing\"}]}";
    char begun[256], *out;
    (void)snprintf(begun, sizeof begun,
                   "{\"moves\":[{\"id\":\"a-18\",\"pool\":\"y\",\"from\":\"a\",\"to\":\"b\","
                   "\"started\":%lld,\"state\":\"done\"},{\"id\":\"a-17\",\"pool\":\"x\",\"from\":"
                   "\"a\",\"to\":\"b\",\"state\":\"copying\",\"started\":%lld}]}",
                   (long long)time(NULL), (long long)time(NULL));
    struct server s = {.script = {
                           {200, asked},
                           /* One of last week went the same way. */
                           {200, "{\"moves\":[" MOVE("done", "3", "") "]}"},
                           {200, begun},
                           {200, "{\"moves\":[" MOVE("done", "3", "") "]}"},
                       }};
    (void)state;
    assert_int_equal(run_line(&s, "node undrain b", 0, &out), CLI_OK);
    assert_string_equal(s.seen, "POST /v1/node_undrain node=b\nGET /v1/moves?node=a\n"
                                "GET /v1/moves?node=a\nGET /v1/moves?id=a-17\n");
    MUST_HAVE(out, "pool x  a is asked to begin\n", "in doubt  4\n");
}

static void test_orders_that_are_not_followed(void **state)
{
    char *out;
    struct server plan = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"}}};
    struct server no = {.script = {{200, "{\"move\":" MOVE("refused", "0", "") "}"}}};
    struct server detach = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"}}};
    struct server none = {.script = {{200, "{\"moves\":[]}"}}};
    struct server json = {.script = {{200, "{\"move\":" MOVE("preparing", "0", "") "}"},
                                     {200, "{\"moves\":[" MOVE("done", "3", "") "]}"}}};
    (void)state;
    assert_int_equal(run_line(&plan, "pool move x --to b --dry-run", 0, &out), CLI_OK);
    assert_string_equal(plan.seen, "POST /v1/move pool=x&to=b&dry_run=1\n");
    MUST_HAVE(out, "would move pool x");
    assert_int_equal(run_line(&no, "pool move x --to b --dry-run", 0, &out), CLI_ERROR);
    MUST_HAVE(out, "would NOT move pool x");
    assert_int_equal(run_line(&detach, "pool move x --to b --detach", 0, &out), CLI_OK);
    MUST_HAVE(out, "move a-17 goes on");
    assert_int_equal(run_line(&none, "node undrain a", 0, &out), CLI_OK);
    MUST_HAVE(out, "nothing is to be moved");
    assert_int_equal(run_line(&json, "pool move x --to b --json", 0, &out), CLI_OK);
    json_t *last = json_of(out);
    assert_int_equal(json_array_size(json_object_get(last, "moves")), 1);
    json_decref(last);
    free(out);
}

/* The refusal of a mistyped name says which was meant: stderr is caught in a file. */
static void test_mistyped_names(void **state)
{
    static const char cluster[] =
        "{\"nodes\":[{\"node\":\"alpha\"},{\"node\":\"beta\"}],\"lanes\":[{\"lane\":"
        "\"192.0.2.1\",\"pool\":\"bulk\"}]}";
    static const struct {
        const char *line, *word;
    } cases[] = {
        {"pool move bulk --to bata", "there is no node bata\n  did you mean beta?\n"},
        {"pool move bluk --to beta", "there is no pool bluk\n  did you mean bulk?\n"},
        {"node drain zzzz", "there is no node zzzz\n  there are alpha, beta\n"},
        {"pool move bulk --to beta", "what to do: make room"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *out, text[1024] = "";
        struct server s = {.script = {{409, "{\"error\":\"no disk for it\"}"}, {200, cluster}}};
        FILE *file = tmpfile();
        int saved = dup(STDERR_FILENO);
        assert_non_null(file);
        (void)fflush(stderr);
        assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
        int r = run_line(&s, cases[i].line, 0, &out);
        (void)fflush(stderr);
        assert_true(dup2(saved, STDERR_FILENO) >= 0);
        (void)close(saved);
        rewind(file);
        (void)fread(text, 1, sizeof text - 1, file);
        (void)fclose(file);
        free(out);
        assert_int_equal(r, CLI_ERROR);
        if (strstr(text, cases[i].word) == NULL)
            fail_msg("%s: no \"%s\" in: %s", cases[i].line, cases[i].word, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follow_prints_lines_and_a_report),
        cmocka_unit_test(test_follow_redraws_on_a_terminal),
        cmocka_unit_test(test_follow_tells_of_failure),
        cmocka_unit_test(test_follow_outlives_a_restart),
        cmocka_unit_test(test_interrupt_detaches),
        cmocka_unit_test(test_interrupt_after_the_last_lane),
        cmocka_unit_test(test_a_move_that_another_node_begins),
        cmocka_unit_test(test_orders_that_are_not_followed),
        cmocka_unit_test(test_mistyped_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
