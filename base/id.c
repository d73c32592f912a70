/* id - message ids and their text form; see id.h. */
#include "base/id.h"

#include "base/table.h"

#include <errno.h>

enum { BOOT_BITS = 48, LETTER_BITS = 5 };

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

struct msg_id id_make(uint16_t origin, uint64_t boot, uint64_t sequence)
{
    MUST(origin >= 1);
    MUST(boot < UINT64_C(1) << BOOT_BITS);
    return (struct msg_id){(uint64_t)origin << BOOT_BITS | boot, sequence};
}

uint32_t id_hash(struct msg_id id)
{
    return hash_u64(id.lo ^ id.hi * UINT64_C(0x9e3779b97f4a7c15));
}

void id_format(struct msg_id id, char out[ID_TEXT + 1])
{
    for (int i = ID_TEXT - 1; i >= 0; i--) {
        out[i] = alphabet[id.lo & 31];
        id.lo = id.lo >> LETTER_BITS | id.hi << (64 - LETTER_BITS);
        id.hi >>= LETTER_BITS;
    }
    out[ID_TEXT] = '\0';
}

/* The value of one letter, or -1. Crockford's aliases (o, i, l) are refused: one id, one text. */
static int letter_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        c |= 0x20;
    const char *at = c == '\0' ? NULL : strchr(alphabet, c);
    return at == NULL ? -1 : (int)(at - alphabet);
}

int id_parse(struct span s, struct msg_id *out)
{
    struct msg_id id = {0, 0};
    if (s.n != ID_TEXT)
        return -EINVAL;
    /* 26 letters are 130 bits: the first one holds only three. */
    if (letter_value(s.p[0]) > 7)
        return -EINVAL;
    for (size_t i = 0; i < ID_TEXT; i++) {
        int v = letter_value(s.p[i]);
        if (v < 0)
            return -EINVAL;
        id.hi = id.hi << LETTER_BITS | id.lo >> (64 - LETTER_BITS);
        id.lo = id.lo << LETTER_BITS | (uint64_t)v;
    }
    *out = id;
    return 0;
}

void put_id(struct writer *w, struct msg_id id)
{
    put_u64(w, id.hi);
    put_u64(w, id.lo);
}

struct msg_id cursor_id(struct cursor *c)
{
    uint64_t hi = cursor_u64(c);
    uint64_t lo = cursor_u64(c);
    return c->bad ? (struct msg_id){0, 0} : (struct msg_id){hi, lo};
}
