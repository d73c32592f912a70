/*
 * crc - CRC32C, see crc.h.
 *
 * Hardware: the crc32 instruction has a latency of three cycles and a throughput of one, so long
 * input is cut into three streams whose results are joined by shifting over the bytes in between (a
 * multiplication by a power of x modulo the polynomial, done by table). Elsewhere: slicing by 8.
 */
#include "base/crc.h"

#include <endian.h>

enum {
    STREAM_BYTES_LONG = 1024,
    STREAM_BYTES_SHORT = 128,
    TABLES = 8,
};

static const uint32_t polynomial = 0x82f63b78; /* reflected */

static uint32_t slices[TABLES][256];

/* A CRC register shifted over a fixed count of zero bytes: one table for each of its four bytes. */
struct shift {
    uint32_t by_byte[4][256];
};
static struct shift shift_long, shift_short;

static void make_slices(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? polynomial : 0);
        slices[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int k = 1; k < TABLES; k++)
            slices[k][i] = slices[k - 1][i] >> 8 ^ slices[0][slices[k - 1][i] & 0xff];
    }
}

/* The shift is linear: what it does to each of the 32 bits says what it does to every byte. */
static void make_shift(struct shift *s, size_t zero_bytes)
{
    uint32_t of_bit[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t c = UINT32_C(1) << bit;
        for (size_t i = 0; i < zero_bytes; i++)
            c = c >> 8 ^ slices[0][c & 0xff];
        of_bit[bit] = c;
    }
    for (int k = 0; k < 4; k++) {
        for (uint32_t v = 0; v < 256; v++) {
            uint32_t c = 0;
            for (int bit = 0; bit < 8; bit++)
                c ^= v >> bit & 1 ? of_bit[8 * k + bit] : 0;
            s->by_byte[k][v] = c;
        }
    }
}

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

/* The register `c` (not inverted) over `s`, in software. */
static uint32_t run_table(uint32_t c, struct span s)
{
    while (s.n >= 8) {
        uint64_t v = load_u64(s.p) ^ c;
        c = 0;
        for (int k = 0; k < TABLES; k++)
            c ^= slices[TABLES - 1 - k][v >> (8 * k) & 0xff];
        s.p += 8;
        s.n -= 8;
    }
    for (size_t i = 0; i < s.n; i++)
        c = c >> 8 ^ slices[0][(c ^ s.p[i]) & 0xff];
    return c;
}

static uint32_t (*run)(uint32_t c, struct span s) = run_table;

#ifdef __x86_64__
#include <nmmintrin.h>

static uint32_t shifted(const struct shift *s, uint32_t c)
{
    return s->by_byte[0][c & 0xff] ^ s->by_byte[1][c >> 8 & 0xff] ^ s->by_byte[2][c >> 16 & 0xff] ^
           s->by_byte[3][c >> 24];
}

/* Three streams of `stream` bytes at a time; returns the register, leaves the rest in *s. */
__attribute__((target("sse4.2"))) static uint32_t run_three(uint32_t c, struct span *s,
                                                            size_t stream, const struct shift *by)
{
    while (s->n >= 3 * stream) {
        uint64_t a = c, b = 0, d = 0;
        for (size_t i = 0; i < stream; i += 8) {
            a = _mm_crc32_u64(a, load_u64(s->p + i));
            b = _mm_crc32_u64(b, load_u64(s->p + stream + i));
            d = _mm_crc32_u64(d, load_u64(s->p + 2 * stream + i));
        }
        c = shifted(by, shifted(by, (uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)d;
        s->p += 3 * stream;
        s->n -= 3 * stream;
    }
    return c;
}

__attribute__((target("sse4.2"))) static uint32_t run_sse42(uint32_t c, struct span s)
{
    c = run_three(c, &s, STREAM_BYTES_LONG, &shift_long);
    c = run_three(c, &s, STREAM_BYTES_SHORT, &shift_short);
    uint64_t wide = c;
    while (s.n >= 8) {
        wide = _mm_crc32_u64(wide, load_u64(s.p));
        s.p += 8;
        s.n -= 8;
    }
    c = (uint32_t)wide;
    for (size_t i = 0; i < s.n; i++)
        c = _mm_crc32_u8(c, s.p[i]);
    return c;
}
#endif

__attribute__((constructor)) static void prepare(void)
{
    make_slices();
    make_shift(&shift_long, STREAM_BYTES_LONG);
    make_shift(&shift_short, STREAM_BYTES_SHORT);
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        run = run_sse42;
#endif
}

uint32_t crc32c(uint32_t crc, struct span s)
{
    return ~run(~crc, s);
}

uint32_t crc32c_portable(uint32_t crc, struct span s)
{
    return ~run_table(~crc, s);
}
