/* counters - see counters.h. */
#include "master/counters.h"

#include "master/master.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int make_page(int *out, struct stats_page **page)
{
    int fd = memfd_create("mochila-counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int rc = 0;
    void *at = MAP_FAILED;
    if (ftruncate(fd, sizeof **page) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        rc = -errno;
    if (rc == 0) {
        at = mmap(NULL, sizeof **page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED)
            rc = -errno;
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    *page = at;
    (*page)->version = STATS_VERSION;
    *out = fd;
    return 0;
}

int counters_init(struct master *m)
{
    for (uint32_t w = 0; w < LIMIT_WORKERS; w++)
        m->page_fds[w] = -1;
    for (uint32_t w = 0; w < m->workers; w++) {
        int rc = make_page(&m->page_fds[w], &m->pages[w]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void counters_fini(struct master *m)
{
    for (uint32_t w = 0; w < m->workers; w++) {
        if (m->pages[w] != NULL)
            (void)munmap(m->pages[w], sizeof *m->pages[w]);
        if (m->page_fds[w] >= 0)
            close(m->page_fds[w]);
        m->pages[w] = NULL;
        m->page_fds[w] = -1;
    }
}
