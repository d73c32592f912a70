/*
 * The retry schedule: doubling, caps by class, greylisting, jitter.
 */
#include "tests/unit/config_support.h"

#include "base/rng.h"
#include "worker/lane/fates.h"

#define YAML(jitter)                                                                             \
    "node: a\n"                                                                                  \
    "listen: [{address: 0.0.0.0, port: 25}]\n"                                                   \
    "pools: {p: {lanes: [{address: 192.0.2.10, ehlo: out10.example.net}]}}\n"                    \
    "queue: {retry_first: 15m, retry_greylist: 5m, retry_max: 4h, retry_max_transactional: 1h, " \
    "retry_jitter_percent: " #jitter "}\n"

static uint64_t plain(const struct config *c, bool transactional, unsigned attempts, enum reason r)
{
    return retry_wait_s(c, transactional, attempts, r, 12345);
}

static void doubles_up_to_the_cap(void **state)
{
    (void)state;
    struct config *c = good(YAML(0));
    static const uint64_t minutes[] = {15, 30, 60, 120, 240, 240, 240};
    for (unsigned i = 0; i < ARRAY_COUNT(minutes); i++)
        assert_int_equal(plain(c, false, i + 1, REASON_REMOTE_TEMP), minutes[i] * 60);
    assert_int_equal(plain(c, false, 65535, REASON_REMOTE_TEMP), 240 * 60);
    config_free(&c);
}

static void transactional_mail_has_a_lower_cap(void **state)
{
    (void)state;
    struct config *c = good(YAML(0));
    assert_int_equal(plain(c, true, 2, REASON_REMOTE_TEMP), 1800);
    assert_int_equal(plain(c, true, 9, REASON_REMOTE_TEMP), 3600);
    config_free(&c);
}

static void greylisting_is_tried_sooner(void **state)
{
    (void)state;
    struct config *c = good(YAML(0));
    assert_int_equal(plain(c, false, 1, REASON_GREYLISTED), 300);
    assert_int_equal(plain(c, false, 2, REASON_GREYLISTED), 600);
    config_free(&c);
}

static void a_lasting_refusal_waits_longest_at_once(void **state)
{
    (void)state;
    struct config *c = good(YAML(0));
    assert_int_equal(plain(c, false, 1, REASON_LASTING), 4 * 3600);
    config_free(&c);
}

static void jitter_stays_within_its_percentage_and_uses_it(void **state)
{
    (void)state;
    struct config *c = good(YAML(20));
    struct rng rng;
    rng_seed(&rng, 1);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t s = retry_wait_s(c, false, 1, REASON_REMOTE_TEMP, (uint32_t)rng_u64(&rng));
        least = s < least ? s : least;
        most = s > most ? s : most;
    }
    assert_in_range(least, 720, 730);
    assert_in_range(most, 1070, 1080);
    assert_int_equal(plain(c, false, 1, REASON_REMOTE_TEMP),
                     plain(c, false, 1, REASON_REMOTE_TEMP));
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doubles_up_to_the_cap),
        cmocka_unit_test(transactional_mail_has_a_lower_cap),
        cmocka_unit_test(greylisting_is_tried_sooner),
        cmocka_unit_test(a_lasting_refusal_waits_longest_at_once),
        cmocka_unit_test(jitter_stays_within_its_percentage_and_uses_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
