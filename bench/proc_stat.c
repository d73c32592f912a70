#include "bench/proc_stat.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, PATH_BYTES = 64 };

struct tree {
    struct proc_stat all[PROC_TREE_MAX];
    bool is_in[PROC_TREE_MAX];
    uint32_t count;
};

/* 0 and the start of a file of /proc, or -errno. */
static int read_file(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, out, cap - 1);
    close(fd);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    out[n] = '\0';
    return 0;
}

bool proc_stat_parse(const char *line, struct proc_stat *out)
{
    /* The name may hold blanks and parentheses: what follows the last one counts. */
    const char *rest = strrchr(line, ')');
    unsigned long user;
    unsigned long system;
    long reaped_user;
    long reaped_system;

    *out = (struct proc_stat){0};
    if (rest == NULL || sscanf(line, "%d", &out->pid) != 1)
        return false;
    int n = sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld",
                   &out->parent, &user, &system, &reaped_user, &reaped_system);
    if (n != 5)
        return false;
    out->ticks = user + system + (uint64_t)reaped_user + (uint64_t)reaped_system;
    return true;
}

static void scan(struct tree *t)
{
    DIR *dir = opendir("/proc");
    struct dirent *e;
    char path[PATH_BYTES];
    char line[LINE_BYTES];

    t->count = 0;
    if (dir == NULL)
        return;
    while ((e = readdir(dir)) != NULL && t->count < PROC_TREE_MAX) {
        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%.20s/stat", e->d_name);
        if (read_file(path, line, sizeof line) < 0)
            continue;
        if (proc_stat_parse(line, &t->all[t->count]))
            t->is_in[t->count++] = false;
    }
    closedir(dir);
}

static bool parent_is_in(const struct tree *t, uint32_t i)
{
    for (uint32_t j = 0; j < t->count; j++)
        if (t->is_in[j] && t->all[j].pid == t->all[i].parent)
            return true;
    return false;
}

/* Marks root and its descendants; false when root is gone. */
static bool mark(struct tree *t, pid_t root)
{
    bool found = false;
    bool grown = true;

    for (uint32_t i = 0; i < t->count; i++)
        if (t->all[i].pid == root)
            found = t->is_in[i] = true;
    while (grown) {
        grown = false;
        for (uint32_t i = 0; i < t->count; i++)
            if (!t->is_in[i] && parent_is_in(t, i))
                grown = t->is_in[i] = true;
    }
    return found;
}

/* The tree under root, to be freed; NULL when root is gone. */
static struct tree *tree_of(pid_t root)
{
    struct tree *t = malloc(sizeof *t);

    if (t == NULL)
        return NULL;
    scan(t);
    if (mark(t, root))
        return t;
    free(t);
    return NULL;
}

int proc_tree_cpu(pid_t root, double *seconds)
{
    struct tree *t = tree_of(root);
    uint64_t ticks = 0;

    if (t == NULL)
        return -ESRCH;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->is_in[i])
            ticks += t->all[i].ticks;
    *seconds = (double)ticks / (double)sysconf(_SC_CLK_TCK);
    free(t);
    return 0;
}

static uint64_t field_kb(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, 10) : 0;
}

int proc_tree_memory(pid_t root, struct proc_memory *out)
{
    struct tree *t = tree_of(root);
    char path[PATH_BYTES];
    char text[LINE_BYTES];

    *out = (struct proc_memory){0};
    if (t == NULL)
        return -ESRCH;
    for (uint32_t i = 0; i < t->count; i++) {
        if (!t->is_in[i])
            continue;
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)t->all[i].pid);
        if (read_file(path, text, sizeof text) < 0)
            continue;
        out->rss_bytes += field_kb(text, "\nRss:") * 1024;
        out->pss_bytes += field_kb(text, "\nPss:") * 1024;
        out->processes++;
    }
    free(t);
    return 0;
}

double proc_machine_busy_s(void)
{
    char line[LINE_BYTES];
    unsigned long long user;
    unsigned long long nice;
    unsigned long long system;
    unsigned long long irq;
    unsigned long long soft;

    if (read_file("/proc/stat", line, sizeof line) < 0)
        return 0;
    if (sscanf(line, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq, &soft) !=
        5)
        return 0;
    return (double)(user + nice + system + irq + soft) / (double)sysconf(_SC_CLK_TCK);
}
