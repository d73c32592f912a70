/* number - see number.h. */
#include "config/number.h"

#include "base/text.h"
#include "config/value.h"

#include <errno.h>

struct unit {
    const char *name;
    uint64_t factor;
};
/* Largest first: a value is shown in the largest unit that divides it. */
static const struct unit size_units[] = {{"G", UINT64_C(1) << 30},
                                         {"M", UINT64_C(1) << 20},
                                         {"K", UINT64_C(1) << 10},
                                         {"", 1},
                                         {NULL, 0}};
static const struct unit second_units[] = {
    {"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {NULL, 0}};
static const struct unit millisecond_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                                {"s", 1000},     {"ms", 1},      {NULL, 0}};

static const struct unit *duration_units(const struct config_key *k)
{
    return k->type == KEY_MILLISECONDS ? millisecond_units : second_units;
}

uint64_t value_load(const void *field, size_t bytes)
{
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch (bytes) {
    case sizeof u8:
        memcpy(&u8, field, bytes);
        return u8;
    case sizeof u16:
        memcpy(&u16, field, bytes);
        return u16;
    case sizeof u32:
        memcpy(&u32, field, bytes);
        return u32;
    }
    MUST(bytes == sizeof u64);
    memcpy(&u64, field, bytes);
    return u64;
}

void value_store(void *field, size_t bytes, uint64_t v)
{
    uint8_t u8 = (uint8_t)v;
    uint16_t u16 = (uint16_t)v;
    uint32_t u32 = (uint32_t)v;

    switch (bytes) {
    case sizeof u8:
        memcpy(field, &u8, bytes);
        break;
    case sizeof u16:
        memcpy(field, &u16, bytes);
        break;
    case sizeof u32:
        memcpy(field, &u32, bytes);
        break;
    default:
        MUST(bytes == sizeof v);
        memcpy(field, &v, bytes);
    }
    MUST(value_load(field, bytes) == v);
}

static int store_in_range(const struct config_key *k, uint64_t v, void *field)
{
    if (v < k->min || v > k->max)
        return -EINVAL;
    value_store(field, k->bytes, v);
    return 0;
}

/* Digits and one of the units; -EINVAL when it is anything else or too large for 64 bits. */
static int parse_with_unit(const struct unit *units, const char *text, uint64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t n;

    if (span_to_u64(span_of(text, digits), &n) < 0)
        return -EINVAL;
    for (; units->name != NULL; units++) {
        if (strcmp(units->name, text + digits) == 0)
            return __builtin_mul_overflow(n, units->factor, out) ? -EINVAL : 0;
    }
    return -EINVAL;
}

static void put_with_unit(const struct unit *units, uint64_t v, struct text *out)
{
    if (v == 0) {
        text_putc(out, '0');
        return;
    }
    while (v % units->factor != 0)
        units++;
    text_put_u64(out, v / units->factor);
    text_puts(out, units->name);
}

int number_parse_bool(const struct config_key *k, const char *text, void *field)
{
    bool yes = strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "false") != 0)
        return -EINVAL;
    value_store(field, k->bytes, yes);
    return 0;
}

int number_parse_count(const struct config_key *k, const char *text, void *field)
{
    uint64_t n;
    if (span_to_u64(span_str(text), &n) < 0)
        return -EINVAL;
    return store_in_range(k, n, field);
}

int number_parse_size(const struct config_key *k, const char *text, void *field)
{
    uint64_t n;
    if (parse_with_unit(size_units, text, &n) < 0)
        return -EINVAL;
    return store_in_range(k, n, field);
}

int number_parse_duration(const struct config_key *k, const char *text, void *field)
{
    uint64_t n = 0;
    if (strcmp(text, "0") != 0 && parse_with_unit(duration_units(k), text, &n) < 0)
        return -EINVAL;
    return store_in_range(k, n, field);
}

void number_allow_count(const struct config_key *k, struct text *out)
{
    text_puts(out, "a whole number from ");
    text_put_u64(out, k->min);
    text_puts(out, " to ");
    text_put_u64(out, k->max);
}

void number_allow_size(const struct config_key *k, struct text *out)
{
    text_puts(out, "a size from ");
    put_with_unit(size_units, k->min, out);
    text_puts(out, " to ");
    put_with_unit(size_units, k->max, out);
    text_puts(out, " (bytes, or a number with K, M or G)");
}

void number_allow_duration(const struct config_key *k, struct text *out)
{
    text_puts(out, "a duration from ");
    put_with_unit(duration_units(k), k->min, out);
    text_puts(out, " to ");
    put_with_unit(duration_units(k), k->max, out);
    text_puts(out, k->type == KEY_MILLISECONDS ? " (a number with ms, s, m, h or d)"
                                               : " (a number with s, m, h or d)");
}

void number_format_bool(const struct config_key *k, const void *field, struct text *out)
{
    text_puts(out, value_load(field, k->bytes) != 0 ? "true" : "false");
}

void number_format_count(const struct config_key *k, const void *field, struct text *out)
{
    text_put_u64(out, value_load(field, k->bytes));
}

void number_format_size(const struct config_key *k, const void *field, struct text *out)
{
    put_with_unit(size_units, value_load(field, k->bytes), out);
}

void number_format_duration(const struct config_key *k, const void *field, struct text *out)
{
    put_with_unit(duration_units(k), value_load(field, k->bytes), out);
}
