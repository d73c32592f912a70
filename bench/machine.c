#include "bench/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 4096 };

static void describe_cpu(struct machine *m)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[LINE_BYTES];

    snprintf(m->cpu, sizeof m->cpu, "unknown");
    if (f == NULL)
        return;
    while (fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL)
            continue;
        snprintf(m->cpu, sizeof m->cpu, "%.200s", colon + 2);
        m->cpu[strcspn(m->cpu, "\n")] = '\0';
        break;
    }
    fclose(f);
}

/* The last path component of a device, as jbd2 names its journals: vda, loop0. */
static bool has_journal(const char *device)
{
    char path[MACHINE_TEXT_BYTES];
    const char *slash = strrchr(device, '/');

    snprintf(path, sizeof path, "/proc/fs/jbd2/%.100s-8", slash != NULL ? slash + 1 : device);
    return access(path, F_OK) == 0;
}

struct mount {
    unsigned major;
    unsigned minor;
    char options[200];
    char type[64];
    char device[200];
};

static bool parse_mount(const char *line, struct mount *mount)
{
    /* id parent major:minor root point options [tags] - type device super-options */
    const char *tail = strstr(line, " - ");

    if (tail == NULL)
        return false;
    return sscanf(line, "%*d %*d %u:%u %*s %*s %199s", &mount->major, &mount->minor,
                  mount->options) == 3 &&
           sscanf(tail, " - %63s %199s", mount->type, mount->device) == 2;
}

static void describe_file_system(struct machine *m, const char *dir)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[LINE_BYTES];
    struct mount mount;
    struct stat st;

    snprintf(m->file_system, sizeof m->file_system, "unknown");
    if (f == NULL)
        return;
    while (stat(dir, &st) == 0 && fgets(line, sizeof line, f) != NULL) {
        if (!parse_mount(line, &mount) || major(st.st_dev) != mount.major ||
            minor(st.st_dev) != mount.minor)
            continue;
        const char *journal = "";
        if (strcmp(mount.type, "ext4") == 0)
            journal = has_journal(mount.device) ? " with journal" : " without journal";
        snprintf(m->file_system, sizeof m->file_system, "%s%s (%.60s, %.60s)", mount.type, journal,
                 mount.device, mount.options);
        break;
    }
    fclose(f);
}

void machine_describe(struct machine *m, const char *dir)
{
    struct utsname name;
    time_t now = time(NULL);
    struct tm tm;

    *m = (struct machine){.cores = sysconf(_SC_NPROCESSORS_ONLN)};
    m->memory_gb = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1e9;
    describe_cpu(m);
    describe_file_system(m, dir);
    if (uname(&name) == 0)
        snprintf(m->kernel, sizeof m->kernel, "%.40s %.80s %.40s", name.sysname, name.release,
                 name.machine);
    gmtime_r(&now, &tm);
    strftime(m->date, sizeof m->date, "%Y-%m-%d %H:%M UTC", &tm);
}
