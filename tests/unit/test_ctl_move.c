/* ctl moves: the pictures of moves, cluster and ledger; hostile answers; orders and the live follow
 * against a server that answers what the test says. */
#include "ctl/args.h"
#include "ctl/cmd.h"
#include "ctl/follow.h"
#include "ctl/move_view.h"
#include "ctl/render.h"
#include "ctl/screen.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define LANE(n, state, step) \
    "{\"lane\":\"192.0.2." n "\",\"state\":\"" state "\",\"step\":" step "}"
#define MOVE(state, done, more)                                                                  \
    "{\"id\":\"a-17\",\"pool\":\"x\",\"from\":\"a\",\"to\":\"b\",\"state\":\"" state "\","       \
    "\"started\":1000,\"ended\":1010,\"lanes_total\":3,\"lanes_done\":" done                     \
    ",\"messages_total\":1200,\"messages_sent\":1000,\"bytes_total\":2097152,"                   \
    "\"bytes_sent\":1048576,\"rate_bytes_per_s\":524288,\"eta_s\":2," more                       \
    "\"pause_us\":{\"p50\":3100,\"p99\":14200,\"max\":1500000},\"tails\":2,\"owed\":1,"          \
    "\"in_doubt\":4,\"lanes\":[" LANE("1", "copying", "3") "," LANE("2", "done", "11") "," LANE( \
        "3", "preparing", "1") "]}"

static json_t *json_of(const char *text)
{
    json_error_t where;
    json_t *v = json_loads(text, 0, &where);
    if (v == NULL)
        fail_msg("%s: %s", where.text, text);
    return v;
}

/* What a picture of this move prints. */
static char *picture(void (*draw)(const struct view *v, const json_t *move), const char *move_text)
{
    char *out = NULL;
    size_t size = 0;
    json_t *move = json_of(move_text);
    struct view v = {.out = open_memstream(&out, &size)};
    draw(&v, move);
    assert_int_equal(fclose(v.out), 0);
    json_decref(move);
    return out;
}

static void block(const struct view *v, const json_t *move)
{
    move_view_block(v, move, MOVE_VIEW_LANES);
}

static void must_have(char *out, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(out, words[i]) == NULL)
            fail_msg("no \"%s\" in:\n%s", words[i], out);
    }
    free(out);
}
#define MUST_HAVE(out, ...)                            \
    must_have(out, (const char *const[]){__VA_ARGS__}, \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void test_units_of_pauses(void **state)
{
    static const struct {
        double us;
        const char *text;
    } cases[] = {{0, "0ms"},      {-5, "0ms"},       {120, "0.1ms"},    {9940, "9.9ms"},
                 {14200, "14ms"}, {999400, "999ms"}, {1500000, "1.5s"}, {90e6, "1m30s"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[VIEW_NUMBER_BYTES];
        assert_string_equal(unit_us(cases[i].us, out), cases[i].text);
    }
}

static void test_pictures(void **state)
{
    (void)state;
    MUST_HAVE(picture(block, MOVE("copying", "1", "")), "move a-17   pool x   a -> b   copying",
              "10s\n", "lanes 1/3   1 copying, 1 done, 1 preparing", "1.0 MiB of 2.0 MiB",
              "1,000 of 1,200 messages", "512 KiB/s", "ETA 2s", "p50 3.1ms, p99 14ms, max 1.5s",
              "tails 2   owed 1   in doubt 4", "192.0.2.1  copying");
    MUST_HAVE(picture(move_view_line, MOVE("copying", "1", "")),
              "  a-17  copying  lanes 1/3  1.0 MiB of 2.0 MiB  1,000 of 1,200 messages  512 KiB/s  "
              "ETA 2s  pause max 1.5s\n");
    MUST_HAVE(picture(move_view_report, MOVE("done", "3", "")), "messages  1,000\n",
              "bytes     1.0 MiB\n", "duration  10s (102 KiB/s)\n",
              "pause     p50 3.1ms, p99 14ms, max 1.5s\n",
              "tails     2 (open deliveries that still finish on a)\n", "in doubt  4\n");
    MUST_HAVE(picture(move_view_plan, MOVE("preparing", "0", "")),
              "would move pool x from a to b: 3 lanes, 1,200 messages, 2.0 MiB, about 2s\n");
    MUST_HAVE(picture(move_view_plan, MOVE("refused", "0", "\"reason\":\"disk is full\",")),
              "would NOT move pool x", "disk is full\n    what to do: make room");
}

static void test_lane_that_is_over_is_not_under_way(void **state)
{
    (void)state;
    char *out = picture(block, MOVE("copying", "1", ""));
    assert_null(strstr(out, "192.0.2.2"));
    /* What was begun stands above what waits. */
    assert_true(strstr(out, "192.0.2.1") < strstr(out, "192.0.2.3"));
    free(out);
}

static void test_verdicts(void **state)
{
    static const struct {
        const char *move;
        bool over, good;
    } cases[] = {
        {MOVE("preparing", "0", ""), false, false}, {MOVE("copying", "3", ""), false, false},
        {MOVE("moving", "3", ""), false, false},    {MOVE("done", "3", ""), true, true},
        {MOVE("done", "2", ""), true, false},       {MOVE("aborted", "3", ""), true, false},
        {MOVE("refused", "0", ""), true, false},    {MOVE("failed", "3", ""), true, false},
        {MOVE("warming", "3", ""), false, false},   {"{}", false, false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        json_t *move = json_of(cases[i].move);
        assert_int_equal(move_view_over(move), cases[i].over);
        assert_int_equal(move_view_good(move), cases[i].good);
        json_decref(move);
    }
}

/* A refused pool of a thousand lanes is a few lines: one for each reason, with advice. */
static void test_reasons_are_grouped(void **state)
{
    char *text = NULL;
    size_t size = 0;
    unsigned lines = 0;
    FILE *f = open_memstream(&text, &size);
    (void)state;
    fputs("{\"id\":\"a-1\",\"from\":\"a\",\"to\":\"b\",\"state\":\"refused\",\"lanes_total\":1000,"
          "\"reason\":\"not now\",\"lanes\":[",
          f);
    for (unsigned i = 0; i < 1000; i++)
        fprintf(f, "%s{\"lane\":\"l%u\",\"state\":\"refused\",\"reason\":\"%s\"}", i > 0 ? "," : "",
                i, i % 2 == 0 ? "tail is still open" : "version 3");
    fputs("]}", f);
    assert_int_equal(fclose(f), 0);
    char *out = picture(move_view_report, text);
    for (const char *p = out; *p != '\0'; p++)
        lines += *p == '\n';
    assert_true(lines < 12);
    MUST_HAVE(out, "1000 lanes stay on a", "  not now\n",
              "l0 and 499 more: tail is still open\n    what to do: deliveries of an earlier move",
              "l1 and 499 more: version 3\n    what to do: update the older");
    out = picture(block, text);
    assert_null(strstr(out, "l9"));
    free(out);
    free(text);
}

static void test_a_thousand_lanes_under_way(void **state)
{
    char *text = NULL;
    size_t size = 0;
    unsigned lines = 0;
    FILE *f = open_memstream(&text, &size);
    (void)state;
    fputs("{\"id\":\"a-1\",\"state\":\"copying\",\"lanes\":[", f);
    for (unsigned i = 0; i < 1000; i++)
        fprintf(f, "%s{\"lane\":\"l%u\",\"state\":\"%s\",\"step\":%u}", i > 0 ? "," : "", i,
                i == 999 ? "copying" : "waiting", i == 999 ? 3 : 0);
    fputs("]}", f);
    assert_int_equal(fclose(f), 0);
    char *out = picture(block, text);
    for (const char *p = out; *p != '\0'; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 4 + 1 + MOVE_VIEW_LANES + 1);
    MUST_HAVE(out, "999 waiting, 1 copying", "l999", "... and 992 more\n");
    free(text);
}

static int rendered(int (*render)(struct cli *c, const json_t *answer), const char *words,
                    const char *answer_text, char **out)
{
    size_t size = 0;
    struct cli c = {.view = {.out = open_memstream(out, &size)}};
    json_t *answer = json_of(answer_text);
    if (words != NULL) {
        c.words[0] = words;
        c.word_count = 1;
    }
    int r = render(&c, answer);
    assert_int_equal(fclose(c.view.out), 0);
    json_decref(answer);
    return r;
}

static void test_cluster(void **state)
{
    char *out;
    (void)state;
    assert_int_equal(
        rendered(render_cluster, NULL,
                 "{\"cluster\":\"prod\",\"node\":\"a\",\"nodes\":[{\"node\":\"a\",\"self\":true,"
                 "\"up\":true,\"version\":\"0.1\",\"lanes\":16},{\"node\":\"b\",\"up\":false,"
                 "\"since_s\":75}],\"lanes\":[{\"lane\":\"192.0.2.1\",\"pool\":\"x\",\"owner\":"
                 "\"a\",\"epoch\":1,\"role\":\"owner\",\"run\":true,\"queued\":5}]}",
                 &out),
        CLI_OK);
    MUST_HAVE(out, "cluster prod   seen from a\n", "DOWN", "192.0.2.1", "RUNS",
              "node b has not been heard of for 1m15s");
    (void)rendered(render_cluster, NULL, "{\"cluster\":\"\"}", &out);
    MUST_HAVE(out, "in no cluster");
}

static void test_many_lanes_are_told_by_pool(void **state)
{
    char *text = NULL, *out;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    (void)state;
    fputs("{\"cluster\":\"c\",\"nodes\":[],\"lanes\":[", f);
    for (unsigned i = 0; i < 1000; i++)
        fprintf(f,
                "%s{\"lane\":\"l%u\",\"pool\":\"p\",\"owner\":\"%s\",\"queued\":2,\"move\":\"%s\"}",
                i > 0 ? "," : "", i, i < 400 ? "a" : "b", i < 10 ? "a-1" : "");
    fputs("]}", f);
    assert_int_equal(fclose(f), 0);
    (void)rendered(render_cluster, NULL, text, &out);
    assert_null(strstr(out, "l7"));
    MUST_HAVE(out, "p     a        400     800      10\n", "p     b        600   1,200       0\n");
    free(text);
}

static void test_cluster_ledger(void **state)
{
    static const struct {
        const char *answer;
        int status;
        const char *word;
    } cases[] = {
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":100,\"delivered\":60,\"handed_over\":40},"
         "{\"node\":\"b\",\"accepted\":40,\"taken_over\":40,\"delivered\":30,\"queued\":10}],"
         "\"balanced\":true}",
         CLI_OK,
         "accepted by the cluster 100 = delivered 90 + bounced 0 + expired 0 + deleted 0 + "
         "queued 10 + in transit 0\nbalanced\n"},
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":100,\"delivered\":60,\"handed_over\":40},"
         "{\"node\":\"b\",\"accepted\":35,\"taken_over\":35,\"delivered\":35}]}",
         CLI_OK, "in transit 5\nbalanced"},
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":100,\"delivered\":59,\"handed_over\":40},"
         "{\"node\":\"b\",\"accepted\":40,\"taken_over\":40,\"delivered\":40}],"
         "\"balanced\":true}",
         CLI_ERROR, "NOT balanced: 1 recipients are unaccounted for"},
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":1,\"delivered\":2}]}", CLI_ERROR,
         "are too many"},
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":1,\"delivered\":1}],\"balanced\":false}",
         CLI_ERROR, "NOT balanced"},
        {"{\"nodes\":[{\"node\":\"a\",\"accepted\":1,\"delivered\":1},{\"node\":\"b\","
         "\"error\":\"no answer\"}]}",
         CLI_ERROR, "no figures from node b"},
        {"{\"nodes\":[]}", CLI_ERROR, "NOT balanced"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *out;
        assert_int_equal(rendered(render_ledger, NULL, cases[i].answer, &out), cases[i].status);
        MUST_HAVE(out, cases[i].word);
    }
}

static void test_move_status(void **state)
{
    char *out;
    (void)state;
    assert_int_equal(rendered(render_moves, NULL, "{\"moves\":[]}", &out), CLI_OK);
    MUST_HAVE(out, "no lane has been moved yet");
    assert_int_equal(
        rendered(render_moves, NULL, "{\"moves\":[" MOVE("failed", "1", "") "]}", &out), CLI_OK);
    MUST_HAVE(out, "a-17", "1/3", "failed");
    assert_int_equal(rendered(render_moves, "a-9", "{\"moves\":[]}", &out), CLI_NOT_FOUND);
    MUST_HAVE(out, "there is no move a-9");
    assert_int_equal(
        rendered(render_moves, "a-17", "{\"moves\":[" MOVE("failed", "1", "") "]}", &out),
        CLI_ERROR);
    MUST_HAVE(out, "2 lanes stay on a");
    assert_int_equal(
        rendered(render_moves, "a-17", "{\"moves\":[" MOVE("copying", "1", "") "]}", &out), CLI_OK);
    MUST_HAVE(out, "lanes 1/3");
}

/* Whatever a newer or broken node sends does no harm, and no control character gets out. */
static void test_pictures_take_anything(void **state)
{
    static void (*const pictures[])(const struct view *v, const json_t *move) = {
        block, move_view_line, move_view_report, move_view_plan};
    static int (*const renderers[])(struct cli * c, const json_t *answer) = {
        render_moves, render_cluster, render_cluster_ledger, render_ledger};
    static const char *const answers[] = {
        "{}",
        "{\"id\":5,\"state\":[],\"lanes\":{\"a\":1},\"pause_us\":7,\"bytes_sent\":\"x\"}",
        "{\"state\":\"refused\\u001b[31m\",\"reason\":\"\\u001b]0;x\\u0007\",\"from\":\"\\u001b\","
        "\"id\":\"\\u001b\",\"pool\":\"\\u001b\",\"lanes\":[null,1,\"x\",[],{\"state\":5,"
        "\"reason\":"
        "\"\\u001b\",\"lane\":\"\\u001b\"},{\"state\":\"\\u001b\",\"lane\":\"\\u001b\"}]}",
        "{\"eta_s\":1e300,\"started\":-1e300,\"ended\":1e300,\"lanes_total\":-1,\"lanes_done\":"
        "1e300,"
        "\"pause_us\":{\"p50\":1e300,\"p99\":-1,\"max\":1e300},\"state\":\"done\"}",
        "{\"moves\":[null,1,{\"id\":\"\\u001b\",\"lanes\":[null]}],\"nodes\":[null,1,{\"up\":\"x\","
        "\"node\":\"\\u001b\"}],\"lanes\":[1,null,{\"pool\":\"\\u001b\"}],\"cluster\":\"\\u001b\"}",
        "{\"moves\":5,\"nodes\":7,\"lanes\":\"x\",\"cluster\":\"c\",\"balanced\":\"x\"}",
        "{\"nodes\":[{\"accepted\":1e300,\"delivered\":-1e300}]}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        for (size_t p = 0; p < ARRAY_COUNT(pictures); p++) {
            char *out = picture(pictures[p], answers[i]);
            assert_null(strchr(out, '\033'));
            assert_null(strchr(out, '\a'));
            free(out);
        }
        for (size_t p = 0; p < 2 * ARRAY_COUNT(renderers); p++) {
            char *out;
            (void)rendered(renderers[p / 2], p % 2 == 0 ? NULL : "a-1", answers[i], &out);
            assert_null(strchr(out, '\033'));
            free(out);
        }
    }
}

/* ---- a server that answers what the test says ---- */

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
    (void)snprintf(s->path, sizeof s->path, "/tmp/test_ctl_move.%d", (int)getpid());
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

static void test_advice(void **state)
{
    static const struct {
        const char *reason, *word;
    } cases[] = {
        {"DISK of b has 3 MiB left", "make room"},
        {"a tail of an earlier move is open", "deliveries of an earlier move"},
        {"lane 192.0.2.1 is not configured on b", "mochila reload"},
        {"the pool is already on its way to c", "mochila move abort"},
        {"b cannot be reached", "do not see each other"},
        {"the other node's master does not answer", "do not see each other"},
        {"netd does not answer", "mochila-netd"},
        {"netd does not run", "mochila-netd"},
        {"lane 192.0.2.1 has open connections of its last move a-1: try again when they end",
         "deliveries of an earlier move"},
        {"lane 192.0.2.1 is here already", "nothing is to be done"},
        {"lane 192.0.2.1 is in move a-1 already", "wait for the other move"},
        {"lane 192.0.2.1 is not ours: c owns it", "where the lanes are"},
        {"the releases of the two nodes lay out records differently", "update the older"},
        {"the lane is in another pool there", "compare mochila.yaml"},
        {"192.0.2.1 is in use by 02:00:00:00:00:01", "another host answers"},
        {"this kernel forwards no tails: nf_tables is missing", "nft_fwd_netdev"},
        {"interface eth0: is down", "cluster.interface"},
        {"state.db cannot be written", "of that node"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *what = move_view_advice(cases[i].reason);
        assert_non_null(what);
        assert_non_null(strstr(what, cases[i].word));
    }
    assert_null(move_view_advice(""));
    assert_null(move_view_advice("because"));
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
        {"pool move bulk --to bata", "there is no node bata: did you mean beta?"},
        {"pool move bluk --to beta", "there is no pool bluk: did you mean bulk?"},
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
        cmocka_unit_test(test_units_of_pauses),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_lane_that_is_over_is_not_under_way),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_reasons_are_grouped),
        cmocka_unit_test(test_a_thousand_lanes_under_way),
        cmocka_unit_test(test_cluster),
        cmocka_unit_test(test_many_lanes_are_told_by_pool),
        cmocka_unit_test(test_cluster_ledger),
        cmocka_unit_test(test_move_status),
        cmocka_unit_test(test_pictures_take_anything),
        cmocka_unit_test(test_follow_prints_lines_and_a_report),
        cmocka_unit_test(test_follow_redraws_on_a_terminal),
        cmocka_unit_test(test_follow_tells_of_failure),
        cmocka_unit_test(test_follow_outlives_a_restart),
        cmocka_unit_test(test_interrupt_detaches),
        cmocka_unit_test(test_orders_that_are_not_followed),
        cmocka_unit_test(test_advice),
        cmocka_unit_test(test_mistyped_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
