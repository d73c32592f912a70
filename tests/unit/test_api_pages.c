/* api pages: mapping, names of lanes, metrics and JSON from pages with known numbers. */
#include "master/api/fields.h"
#include "master/api/listen.h"
#include "master/api/pages.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct stats_page *page_make(int *fd)
{
    *fd = memfd_create("page", MFD_CLOEXEC);
    assert_true(*fd >= 0);
    assert_int_equal(ftruncate(*fd, sizeof(struct stats_page)), 0);
    void *p = mmap(NULL, sizeof(struct stats_page), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static void page_free(struct stats_page *p, int fd)
{
    assert_int_equal(munmap(p, sizeof *p), 0);
    close(fd);
}

static void test_mapping(void **state)
{
    int fd[2];
    struct stats_page *a = page_make(&fd[0]);
    struct stats_page *b = page_make(&fd[1]);
    struct pages pages = {.node = "n"};
    (void)state;
    a->version = STATS_VERSION;
    assert_int_equal(pages_map(&pages, fd, 2), 0); /* an unused page is good too */
    assert_int_equal(pages.count, 2);
    assert_string_equal(pages.node, "n");
    b->version = STATS_VERSION + 1;
    assert_int_equal(pages_map(&pages, fd, 2), -EINVAL);
    assert_int_equal(pages.count, 2); /* what was there stays */
    b->version = STATS_VERSION;
    assert_int_equal(ftruncate(fd[1], 100), 0);
    assert_int_equal(pages_map(&pages, fd, 2), -EINVAL);
    assert_int_equal(ftruncate(fd[1], sizeof(struct stats_page)), 0);
    pages_unmap(&pages);
    assert_int_equal(pages.count, 0);
    page_free(a, fd[0]);
    page_free(b, fd[1]);
}

static void test_names_of_lanes(void **state)
{
    struct pages pages = {0};
    char text[IP_TEXT];
    struct control_lane some[3] = {{.lane = 7}, {.lane = 2}, {.lane = 5}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "192.0.2.%u", some[i].lane);
        assert_int_equal(ip_parse(span_str(address), &some[i].address), 0);
    }
    assert_int_equal(pages_name_lanes(&pages, some, 2), 0);
    assert_int_equal(pages_name_lanes(&pages, some + 2, 1), 0); /* a second START frame adds */
    for (size_t i = 0; i < 3; i++) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "192.0.2.%u", some[i].lane);
        pages_lane_text(&pages, some[i].lane, text);
        assert_string_equal(text, expected);
    }
    pages_lane_text(&pages, 3, text);
    assert_string_equal(text, "3");
    pages_unmap(&pages);
}

static void assert_line(const char *metrics, const char *line)
{
    char whole[256];
    (void)snprintf(whole, sizeof whole, "\n%s\n", line);
    if (strstr(metrics, whole) == NULL)
        fail_msg("no line %s", line);
}

static void test_every_field_is_there_with_its_value(void **state)
{
    int fd;
    struct stats_page *page = page_make(&fd);
    struct pages pages = {.node = "n"};
    size_t count;
    size_t n;
    const struct stats_field *fields = stats_fields(&count);
    (void)state;
    assert_int_equal(pages_map(&pages, &fd, 1), 0);
    for (size_t i = 0; i < count; i++) {
        uint64_t *p = (uint64_t *)(void *)((char *)page + fields[i].offset);
        *p = 1000 + i;
        if (strcmp(fields[i].help, fields[i].name) == 0)
            print_message("fields.c has no sentence for %s\n", fields[i].name);
    }
    page->accept_us[0] = 1;
    page->accept_us[63] = 2;
    page->lanes[LIMIT_LANES - 1] = (struct stats_lane){.lane = 9, .queued = 77};
    char *text = pages_metrics(&pages, 5000000000u, &n);
    json_t *stats = pages_stats(&pages, 5000000000u);
    assert_non_null(text);
    assert_non_null(stats);
    assert_int_equal(strlen(text), n);
    for (size_t i = 0; i < count; i++) {
        char line[128];
        (void)snprintf(line, sizeof line, "mochila_%s%s{worker=\"0\"} %zu", fields[i].name,
                       fields[i].counter ? "_total" : "", 1000 + i);
        assert_line(text, line);
        json_t *total = json_object_get(stats, "total");
        assert_int_equal(json_integer_value(json_object_get(total, fields[i].name)), 1000 + i);
    }
    assert_line(text, "mochila_accept_latency_seconds_bucket{worker=\"0\",le=\"3.2e-05\"} 1");
    assert_line(text, "mochila_accept_latency_seconds_bucket{worker=\"0\",le=\"+Inf\"} 3");
    assert_line(text, "mochila_accept_latency_seconds_count{worker=\"0\"} 3");
    assert_line(text, "mochila_lane_queued{worker=\"0\",lane=\"9\"} 77");
    json_decref(stats);
    free(text);
    pages_unmap(&pages);
    page_free(page, fd);
}

static void test_where_it_listens(void **state)
{
    static const struct {
        const char *where;
        int result;
        uint16_t port;
        bool loopback;
    } cases[] = {
        {"127.0.0.1:80", 0, 80, true},       {"127.255.0.9:65535", 0, 65535, true},
        {"[::1]:8025", 0, 8025, true},       {"0.0.0.0:80", 0, 80, false},
        {"[::]:80", 0, 80, false},           {"128.0.0.1:80", 0, 80, false},
        {"[::2]:80", 0, 80, false},          {"127.0.0.1", -EINVAL, 0, false},
        {"127.0.0.1:0", -EINVAL, 0, false},  {"127.0.0.1:65536", -EINVAL, 0, false},
        {"localhost:80", -EINVAL, 0, false}, {"", -EINVAL, 0, false},
        {":80", -EINVAL, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct ip ip;
        uint16_t port;
        int r = listen_parse(cases[i].where, &ip, &port);
        if (r != cases[i].result)
            fail_msg("%s: %d", cases[i].where, r);
        if (r == 0) {
            assert_int_equal(port, cases[i].port);
            assert_int_equal(listen_is_loopback(&ip), cases[i].loopback);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mapping),
        cmocka_unit_test(test_names_of_lanes),
        cmocka_unit_test(test_every_field_is_there_with_its_value),
        cmocka_unit_test(test_where_it_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
