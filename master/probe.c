/* probe - see probe.h. The master links no liburing: one raw call is all that it needs. */
#include "master/probe.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *remedy(int error)
{
    switch (error) {
    case EPERM:
    case EACCES:
        return "this host refuses io_uring: set sysctl kernel.io_uring_disabled=0, or (in a "
               "container) allow io_uring in its seccomp profile";
    case ENOSYS:
        return "this kernel has no io_uring: Linux 6.1 or newer, built with CONFIG_IO_URING, is "
               "needed; in a container, allow io_uring in its seccomp profile";
    case EINVAL:
        return "this kernel's io_uring is too old: Linux 6.1 or newer is needed";
    default: /* of memory and descriptors: the workers say it, with their own sizes */
        return NULL;
    }
}

int probe_ring(struct text *errors)
{
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                         IORING_SETUP_R_DISABLED};
    long fd = syscall(__NR_io_uring_setup, 1, &p);
    if (fd >= 0) {
        close((int)fd);
        return 0;
    }
    int error = errno;
    const char *line = remedy(error);
    if (line == NULL)
        return 0;
    text_fmt(errors, "%s\n", line);
    return -error;
}
