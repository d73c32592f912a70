/* U-labels become A-labels, whatever is no name becomes an error. */
#include "worker/lane/idna.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
/* cmocka wants the four above */
#include <cmocka.h>

static void test_names(void **state)
{
    static const struct {
        const char *name, *ascii; /* NULL: refused */
    } cases[] = {
        {"example.test", "example.test"},
        {"b\xc3\xbc" "cher.example", "xn--bcher-kva.example"},
        {"B\xc3\x9c" "CHER.example", "xn--bcher-kva.example"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"fa\xc3\x9f.de", "xn--fa-hia.de"}, /* not "fass": nontransitional */
        {"\xcf\x80\xce\xb1\xcf\x81\xce\xac\xce\xb4\xce\xb5\xce\xb9\xce\xb3\xce\xbc\xce\xb1.test",
         "xn--hxajbheg2az3al.test"},
        {"\xff\xfe.test", NULL},
        {"a\xe2\x80\x8e" "b..test", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[LIMIT_DOMAIN_BYTES + 1] = "untouched";
        int r = idna_to_ascii(span_str(cases[i].name), out);
        assert_int_equal(r, cases[i].ascii == NULL ? -EINVAL : 0);
        if (r == 0)
            assert_string_equal(out, cases[i].ascii);
    }
}

static void test_too_long(void **state)
{
    char name[300], out[LIMIT_DOMAIN_BYTES + 1];
    (void)state;
    memset(name, 'a', sizeof name);
    assert_int_equal(idna_to_ascii(span_of(name, sizeof name), out), -EINVAL);
    for (size_t i = 0; i + 1 < 250; i += 2)
        memcpy(name + i, "\xc3\xbc", 2); /* fits as octets, not as one label of A-labels */
    assert_int_equal(idna_to_ascii(span_of(name, 250), out), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
