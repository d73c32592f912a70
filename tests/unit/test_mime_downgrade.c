/*
 * 8-bit messages made 7-bit: what is encoded and how, what stays byte for byte, what is refused.
 */
#include "proto/mime_downgrade.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t *room;
static size_t room_bytes;

static int convert(struct span in, struct span *out, uint64_t *dots)
{
    free(room);
    room_bytes = mime_downgrade_room(in.n);
    room = malloc(room_bytes);
    assert_non_null(room);
    struct writer w = writer_of(room, room_bytes);
    int r = mime_downgrade(in, &w, dots);
    *out = span_of(room, w.n);
    return r;
}

static void becomes(const char *in, const char *expected)
{
    struct span out;
    uint64_t dots;
    assert_int_equal(convert(span_str(in), &out, &dots), 0);
    if (!span_eq(out, span_str(expected)))
        print_error("got:\n%.*s\n", (int)out.n, (const char *)out.p);
    assert_true(span_eq(out, span_str(expected)));
}

static void is_refused(const char *in)
{
    struct span out;
    uint64_t dots;
    assert_int_equal(convert(span_str(in), &out, &dots), -ENOTSUP);
}

#define CTE     "Content-Transfer-Encoding: "
#define VERSION "MIME-Version: 1.0\r\n"
#define PLAIN   "Content-Type: text/plain; charset=utf-8\r\n"

static void seven_bits_stay_as_they_are(void **state)
{
    (void)state;
    static const char *const same[] = {
        "Subject: x\r\n\r\nhello\r\n..dot\r\n",
        "Subject: x\r\n" CTE "8bit\r\n\r\nhello\r\n",
        "Subject: only a header\r\n",
        "\r\n",
        VERSION "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(same); i++)
        becomes(same[i], same[i]);
}

static void text_becomes_quoted_printable(void **state)
{
    (void)state;
    becomes("Subject: x\r\n" VERSION PLAIN CTE "8bit\r\nTo: y\r\n\r\nGr\xc3\xbc\xc3\x9f"
            "e = 1\r\nend\r\n",
            "Subject: x\r\n" VERSION PLAIN CTE
            "quoted-printable\r\nTo: y\r\n\r\nGr=C3=BC=C3=9Fe =3D 1\r\nend\r\n");
}

static void a_missing_encoding_is_added(void **state)
{
    (void)state;
    becomes(VERSION PLAIN "\r\n\xff\r\n", VERSION PLAIN CTE "quoted-printable\r\n\r\n=FF\r\n");
}

static void undeclared_8bit_is_declared(void **state)
{
    (void)state;
    becomes("Subject: x\r\n\r\n\xff\r\n",
            "Subject: x\r\n" VERSION "Content-Type: text/plain; charset=unknown-8bit\r\n" CTE
            "quoted-printable\r\n\r\n=FF\r\n");
}

static void repeated_and_folded_encoding_fields_become_one(void **state)
{
    (void)state;
    becomes(VERSION PLAIN "content-transfer-encoding:\r\n 8bit\r\n" CTE "binary\r\n\r\n\xff\r\n",
            VERSION PLAIN CTE "quoted-printable\r\n\r\n=FF\r\n");
}

static void others_become_base64(void **state)
{
    (void)state;
    becomes(VERSION "Content-Type: application/octet-stream\r\n" CTE "binary\r\n\r\n\xff\xfe\r\n",
            VERSION "Content-Type: application/octet-stream\r\n" CTE "base64\r\n\r\n//4NCg==\r\n");
}

static void dots_are_undoubled_before_they_are_encoded(void **state)
{
    (void)state;
    becomes(VERSION PLAIN "\r\n..a\xff\r\n..\r\n",
            VERSION PLAIN CTE "quoted-printable\r\n\r\n=2Ea=FF\r\n=2E\r\n");
    becomes(VERSION "Content-Type: x/y\r\n\r\n..\xff\r\n",
            VERSION "Content-Type: x/y\r\n" CTE "base64\r\n\r\nLv8NCg==\r\n");
}

static void kept_dots_are_counted(void **state)
{
    (void)state;
    struct span out;
    uint64_t dots = 0;
    static const char in[] =
        VERSION "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
                "--b\r\n\r\n..kept\r\n..kept\r\n--b\r\n\r\n..\xff\r\n--b--\r\n";
    assert_int_equal(convert(span_str(in), &out, &dots), 0);
    assert_int_equal(dots, 2);
}

/* Only the parts that need it change, the delimiters and the others do not. */
static void multiparts_are_converted_part_by_part(void **state)
{
    (void)state;
    becomes(VERSION "Content-Type: multipart/mixed;\r\n boundary=\"a b\" (comment (nested))\r\n" CTE
                    "8bit\r\n\r\n"
                    "pre\xffmble\r\n--a b\r\n" PLAIN "\r\nplain \r\n--a b \r\n" PLAIN CTE
                    "8BIT\r\n\r\n\xe4 \r\n"
                    "--a b\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--a b--\r\nepi\xff\r\n",
            VERSION "Content-Type: multipart/mixed;\r\n boundary=\"a b\" (comment (nested))\r\n" CTE
                    "7bit\r\n\r\n"
                    "pre?mble\r\n--a b\r\n" PLAIN "\r\nplain \r\n--a b \r\n" PLAIN CTE
                    "quoted-printable\r\n\r\n=E4=20\r\n"
                    "--a b\r\nContent-Type: image/png\r\n" CTE
                    "base64\r\n\r\niVBORw==\r\n--a b--\r\nepi?\r\n");
}

static void nested_multiparts(void **state)
{
    (void)state;
    becomes(VERSION "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
                    "Content-Type: multipart/alternative; "
                    "boundary=oi\r\n\r\n--oi\r\n\r\n\xff\r\n--oi--\r\n\r\n--o--\r\n",
            VERSION "Content-Type: multipart/mixed; boundary=o\r\n" CTE "7bit\r\n\r\n--o\r\n"
                    "Content-Type: multipart/alternative; boundary=oi\r\n\r\n--oi\r\n" CTE
                    "quoted-printable\r\n\r\n=FF\r\n--oi--\r\n\r\n--o--\r\n");
}

static void an_unclosed_multipart_is_read_to_its_end(void **state)
{
    (void)state;
    becomes(VERSION "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n",
            VERSION "Content-Type: multipart/mixed; boundary=b\r\n" CTE "7bit\r\n\r\n--b\r\n" CTE
                    "quoted-printable\r\n\r\n=FF\r\n");
}

static void what_may_not_be_changed_is_refused(void **state)
{
    (void)state;
    is_refused("Subject: \xff\r\n\r\nx\r\n");
    is_refused(VERSION PLAIN CTE "quoted-printable\r\n\r\n\xff\r\n");
    is_refused(VERSION PLAIN CTE "base64\r\n\r\n\xff\r\n");
    is_refused(VERSION PLAIN CTE "x-uuencode\r\n\r\n\xff\r\n");
    is_refused(VERSION "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\n\xff\r\n");
    is_refused(VERSION
               "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n");
    is_refused(VERSION
               "Content-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n");
    is_refused(VERSION "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n");
    is_refused(VERSION
               "Content-Type: multipart/mixed; boundary=other\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n");
    is_refused(VERSION "Content-Type: multipart/mixed; boundary=b\r\n" CTE
                       "base64\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n");
    is_refused(VERSION "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
                       "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\n\xff\r\n--b--\r\n");
}

static void too_deep_is_refused(void **state)
{
    (void)state;
    char in[8192];
    size_t n = (size_t)snprintf(in, sizeof in, VERSION);
    for (int i = 0; i <= MIME_DEPTH_MAX; i++)
        n += (size_t)snprintf(in + n, sizeof in - n,
                              "Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n", i,
                              i);
    snprintf(in + n, sizeof in - n, "\r\n\xff\r\n");
    is_refused(in);
}

/* Every line of what is encoded fits 76, and no soft break leaves a dot in front. */
static void long_lines_are_broken(void **state)
{
    (void)state;
    static char in[20000];
    for (unsigned shift = 0; shift < 80; shift++) {
        size_t n = (size_t)snprintf(in, sizeof in, VERSION PLAIN "\r\n");
        size_t header = n;
        for (unsigned i = 0; i < 3000; i++)
            in[n++] = (i + shift) % 7 == 0 ? '.' : (i + shift) % 11 == 0 ? '\xe9' : 'x';
        if (in[header] == '.')
            memmove(in + header + 1, in + header, n++ - header); /* doubled, as it comes */
        memcpy(in + n, "\r\n", 3);
        struct span out;
        uint64_t dots;
        assert_int_equal(convert(span_str(in), &out, &dots), 0);
        assert_int_equal(dots, 0);
        size_t line = 0;
        for (size_t i = 0; i < out.n; i++) {
            line = out.p[i] == '\n' ? 0 : line + 1;
            assert_true(line <= 76 + 1);
        }
    }
}

static void too_little_room_is_said(void **state)
{
    (void)state;
    uint8_t small[40];
    struct writer w = writer_of(small, sizeof small);
    uint64_t dots;
    assert_int_equal(mime_downgrade(span_str(VERSION PLAIN "\r\n\xff\r\n"), &w, &dots), -ENOSPC);
}

static int tear_down(void **state)
{
    (void)state;
    free(room);
    room = NULL;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seven_bits_stay_as_they_are),
        cmocka_unit_test(text_becomes_quoted_printable),
        cmocka_unit_test(a_missing_encoding_is_added),
        cmocka_unit_test(undeclared_8bit_is_declared),
        cmocka_unit_test(repeated_and_folded_encoding_fields_become_one),
        cmocka_unit_test(others_become_base64),
        cmocka_unit_test(dots_are_undoubled_before_they_are_encoded),
        cmocka_unit_test(kept_dots_are_counted),
        cmocka_unit_test(multiparts_are_converted_part_by_part),
        cmocka_unit_test(nested_multiparts),
        cmocka_unit_test(an_unclosed_multipart_is_read_to_its_end),
        cmocka_unit_test(what_may_not_be_changed_is_refused),
        cmocka_unit_test(too_deep_is_refused),
        cmocka_unit_test(long_lines_are_broken),
        cmocka_unit_test(too_little_room_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
