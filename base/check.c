/* check - the end of a process that found a bug of its own. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void check_failed(const char *what, const char *file, int line)
{
    /* No stdio buffers: the state of this process is not to be trusted any more. */
    dprintf(STDERR_FILENO, "MUST failed: %s at %s:%d, process %d\n", what, file, line,
            (int)getpid());
    abort();
}
