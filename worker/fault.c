/* fault - see fault.h. */
#include "worker/fault.h"

#ifdef MOCHILA_FAULTS

#include "base/log.h"

#include <fnmatch.h>
#include <stdlib.h>

enum { ADDRESS_BYTES = 512 };

void fault_on_rcpts(const struct span *rcpts, unsigned count)
{
    static const char key[] = "die-on-rcpt=";
    const char *fault = getenv("MOCHILA_FAULT");
    if (fault == NULL || strncmp(fault, key, sizeof key - 1) != 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        char address[ADDRESS_BYTES];
        size_t n = rcpts[i].n < sizeof address ? rcpts[i].n : sizeof address - 1;
        memcpy(address, rcpts[i].p, n);
        address[n] = '\0';
        if (fnmatch(fault + sizeof key - 1, address, 0) != 0)
            continue;
        log_err("MOCHILA_FAULT: dying at %s as told", address);
        abort();
    }
}

#else

/* A translation unit must not be empty (C11 6.9). */
extern const int fault_absent;
const int fault_absent = 1;

#endif
