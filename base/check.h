/*
 * check - assertions that stay on in release, and compiler attributes.
 *
 * MUST(x) is for bugs of ours only: it ends this process. What the world does wrong (peer, disk,
 * limit, malformed input) is a value, never a MUST.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Prints the failed condition with its place to stderr and aborts. Never returns. */
_Noreturn void check_failed(const char *what, const char *file, int line);

#define MUST(x)                                               \
    do {                                                      \
        if (__builtin_expect(!(x), 0))                        \
            check_failed(#x, __FILE__, __LINE__);             \
    } while (0)

#endif
