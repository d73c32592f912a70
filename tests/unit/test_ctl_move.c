/* ctl moves: the pictures of moves, cluster and ledger, also of hostile and very large answers. */
#include "ctl/move_view.h"
#include "ctl/render.h"

#include "tests/unit/ctl_move_support.h"

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
              "node b cannot be reached for 1m15s");
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
        {"{\"nodes\":[{\"node\":\"b\",\"answered\":false}],\"balanced\":false}", CLI_ERROR,
         "no figures from node b: there is no sum without them\n"},
        {"{\"nodes\":[]}", CLI_ERROR, "NOT balanced"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *out;
        assert_int_equal(rendered(render_ledger, NULL, cases[i].answer, &out), cases[i].status);
        MUST_HAVE(out, cases[i].word);
    }
}

static void test_abort(void **state)
{
    char *out;
    (void)state;
    assert_int_equal(rendered(render_abort, "a-17", "{\"move\":" MOVE("moving", "1", "") "}", &out),
                     CLI_OK);
    MUST_HAVE(out, "move a-17 ends: 1 of 3 lanes are over and stay, the others go on at a");
    assert_int_equal(rendered(render_abort, "a-17", "{\"text\":\"it ends\"}", &out), CLI_OK);
    MUST_HAVE(out, "it ends\n");
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
        render_moves, render_cluster, render_cluster_ledger, render_ledger, render_abort};
    static const char *const answers[] = {
        "{}",
        "{\"id\":5,\"state\":[],\"lanes\":{\"a\":1},\"pause_us\":7,\"bytes_sent\":\"x\"}",
        ("{\"state\":\"refused\\u001b[31m\",\"reason\":\"\\u001b]0;x\\u0007\",\"from\":\"\\u001b\","
         "\"id\":\"\\u001b\",\"pool\":\"\\u001b\",\"lanes\":[null,1,\"x\",[],{\"state\":5,"
         "\"reason\":"
         "\"\\u001b\",\"lane\":\"\\u001b\"},{\"state\":\"\\u001b\",\"lane\":\"\\u001b\"}]}"),
        ("{\"eta_s\":1e300,\"started\":-1e300,\"ended\":1e300,\"lanes_total\":-1,\"lanes_done\":"
         "1e300,"
         "\"pause_us\":{\"p50\":1e300,\"p99\":-1,\"max\":1e300},\"state\":\"done\"}"),
        ("{\"moves\":[null,1,{\"id\":\"\\u001b\",\"lanes\":[null]}],\"nodes\":[null,1,{\"up\":"
         "\"x\","
         "\"node\":\"\\u001b\"}],\"lanes\":[1,null,{\"pool\":\"\\u001b\"}],\"cluster\":"
         "\"\\u001b\"}"),
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
        {"all of it is there already", "nothing, it is on"},
        {"its last move is not over: copying", "wait until the earlier"},
        {"the owner's node cannot be asked now", "do not see each other"},
        {"the move is over already", "how it ended"},
        {"netd does not run", "mochila-netd"},
        {"lane 192.0.2.1 has open connections of its last move a-1: try again when they end",
         "deliveries of an earlier move"},
        {"lane 192.0.2.1 is here already", "nothing, it is on"},
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
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_move_status),
        cmocka_unit_test(test_pictures_take_anything),
        cmocka_unit_test(test_advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
