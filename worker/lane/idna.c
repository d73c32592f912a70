#include "worker/lane/idna.h"

#include <errno.h>
#include <idn2.h>

bool idna_is_needed(struct span name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] > 127)
            return true;
    return false;
}

int idna_to_ascii(struct span name, char out[LIMIT_DOMAIN_BYTES + 1])
{
    char text[LIMIT_DOMAIN_BYTES + 1];
    if (name.n == 0 || name.n > LIMIT_DOMAIN_BYTES || memchr(name.p, 0, name.n) != NULL)
        return -EINVAL;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    if (!idna_is_needed(name)) {
        memcpy(out, text, name.n + 1);
        return 0;
    }
    char *ascii = NULL;
    if (idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return -EINVAL;
    size_t n = strlen(ascii);
    bool fits = n > 0 && n <= LIMIT_DOMAIN_BYTES;
    if (fits)
        memcpy(out, ascii, n + 1);
    idn2_free(ascii);
    return fits ? 0 : -EINVAL;
}
