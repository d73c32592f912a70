/* paths - see paths.h. */
#include "master/paths.h"

#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static int complain(struct text *errors, int error, const char *what, const char *path)
{
    text_fmt(errors, "%s %s: %s\n", what, path, strerror(error));
    return -error;
}

/* Beside us in a build directory; installed, they stand where no shell looks for commands. */
static void find_children(struct paths *p)
{
    char path[PATHS_BYTES + 32];
    snprintf(path, sizeof path, "%s/mochila-worker", p->binaries);
    const char *slash = strrchr(p->binaries, '/');
    if (slash == NULL || access(path, X_OK) == 0)
        return;
    snprintf(path, sizeof path, "%.*s/libexec/mochila", (int)(slash - p->binaries), p->binaries);
    if (access(path, X_OK) == 0 && strlen(path) < sizeof p->binaries)
        snprintf(p->binaries, sizeof p->binaries, "%s", path);
}

int paths_init(struct paths *p, struct text *errors)
{
    *p = (struct paths){.spool_lock = -1, .run_lock = -1};
    ssize_t n = readlink("/proc/self/exe", p->binaries, sizeof p->binaries - 1);
    if (n < 0)
        return complain(errors, errno, "link", "/proc/self/exe");
    p->binaries[n] = '\0';
    char *slash = strrchr(p->binaries, '/');
    MUST(slash != NULL);
    *slash = '\0';
    find_children(p);
    return 0;
}

static int find_user(struct paths *p, const struct config *c, struct text *errors)
{
    p->user = geteuid();
    p->group = getegid();
    if (p->user != 0)
        return 0; /* the children stay what we are */
    if (c->user[0] != '\0') {
        const struct passwd *pw = getpwnam(c->user);
        if (pw == NULL) {
            text_fmt(errors, "user: there is no user \"%s\"; make one with: useradd --system %s\n",
                     c->user, c->user);
            return -EINVAL;
        }
        p->user = pw->pw_uid;
        p->group = pw->pw_gid;
    }
    if (c->group[0] != '\0') {
        const struct group *gr = getgrnam(c->group);
        if (gr == NULL) {
            text_fmt(errors,
                     "group: there is no group \"%s\"; make one with: groupadd --system %s\n",
                     c->group, c->group);
            return -EINVAL;
        }
        p->group = gr->gr_gid;
    }
    return 0;
}

/* mkdir -p; parents get 0755. 1 when the directory itself was made. */
static int make_directory(const char *path, mode_t mode, struct text *errors)
{
    char part[PATHS_BYTES];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return complain(errors, errno, "directory", part);
        *slash = '/';
    }
    if (mkdir(part, mode) == 0)
        return 1;
    struct stat st;
    if (errno != EEXIST || stat(part, &st) < 0)
        return complain(errors, errno, "directory", part);
    return S_ISDIR(st.st_mode) ? 0 : complain(errors, ENOTDIR, "directory", part);
}

/* Which kind of memory a file system is, or NULL when it is on a disk. */
static const char *volatile_kind(const char *path)
{
    struct statfs fs;
    if (statfs(path, &fs) < 0)
        return NULL;
    switch ((unsigned long)fs.f_type) {
    case TMPFS_MAGIC:
        return "tmpfs";
    case RAMFS_MAGIC:
        return "ramfs";
    case OVERLAYFS_SUPER_MAGIC:
        return "overlay";
    default:
        return NULL;
    }
}

static int check_durable(const char *spool, bool allow, struct text *errors)
{
    const char *kind = volatile_kind(spool);
    if (kind == NULL)
        return 0;
    if (allow) {
        log_warn("spool %s is on %s: acknowledged mail does not survive a reboot", spool, kind);
        return 0;
    }
    text_fmt(errors,
             "spool %s is on %s: mail that was acknowledged would not survive a reboot. Put it on "
             "a disk, or, for tests, start with --allow-volatile-spool\n",
             spool, kind);
    return -EINVAL;
}

static int prepare_spool(struct paths *p, const struct config *c, bool allow_volatile,
                         struct text *errors)
{
    bool ours = p->user == geteuid();
    snprintf(p->spool, sizeof p->spool, "%s", c->spool);
    snprintf(p->state_db, sizeof p->state_db, "%s/state.db", c->spool);
    int rc = make_directory(c->spool, ours ? 0700 : 0711, errors);
    if (rc < 0)
        return rc;
    if (!ours && chmod(c->spool, 0711) < 0)
        return complain(errors, errno, "spool", c->spool);
    return check_durable(c->spool, allow_volatile, errors);
}

static int prepare_run(const struct paths *p, const struct config *c, struct text *errors)
{
    int rc = make_directory(c->run, 0755, errors);
    if (rc < 0)
        return rc;
    if (p->user != geteuid() && chown(c->run, p->user, p->group) < 0)
        return complain(errors, errno, "run", c->run);
    return 0;
}

static int prepare_log(struct paths *p, const struct config *c, struct text *errors)
{
    snprintf(p->log, sizeof p->log, "%s", c->log);
    if (c->log[0] == '\0')
        return 0;
    int rc = make_directory(c->log, 0755, errors);
    return rc < 0 ? rc : 0;
}

static void name_holder(int fd, const char *directory, const char *what, struct text *errors)
{
    char pid[16] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    for (ssize_t i = 0; i < n; i++) {
        if (pid[i] < '0' || pid[i] > '9')
            pid[i] = '\0';
    }
    text_fmt(errors,
             "another mochilad%s%s runs with the %s directory %s: stop it first, or give this "
             "one a directory of its own\n",
             pid[0] != '\0' ? ", process " : "", pid, what, directory);
}

/* An flock is gone with its process, however that died; the file stays. */
static int take_lock(const char *directory, const char *what, int *out, struct text *errors)
{
    char path[PATHS_BYTES], pid[16];
    snprintf(path, sizeof path, "%s/mochilad.pid", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return complain(errors, errno, "lock", path);
    *out = fd;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return complain(errors, errno, "lock", path);
        name_holder(fd, directory, what, errors);
        return -EBUSY;
    }
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        return complain(errors, errno, "lock", path);
    return 0;
}

int paths_prepare(struct paths *p, const struct config *c, bool allow_volatile, struct text *errors)
{
    int rc = find_user(p, c, errors);
    if (rc == 0)
        rc = prepare_spool(p, c, allow_volatile, errors);
    if (rc == 0)
        rc = prepare_run(p, c, errors);
    if (rc == 0)
        rc = prepare_log(p, c, errors);
    if (rc == 0)
        rc = take_lock(c->run, "run", &p->run_lock, errors);
    if (rc == 0 && strcmp(c->run, c->spool) != 0)
        rc = take_lock(c->spool, "spool", &p->spool_lock, errors);
    return rc;
}

void paths_fini(struct paths *p)
{
    if (p->spool_lock >= 0)
        close(p->spool_lock);
    if (p->run_lock >= 0)
        close(p->run_lock);
    p->spool_lock = p->run_lock = -1;
}

int paths_make_shard(const struct paths *p, uint32_t shard)
{
    char path[PATHS_BYTES + 32];
    snprintf(path, sizeof path, "%s/shard-%u", p->spool, shard);
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    if (p->user != geteuid() && chown(path, p->user, p->group) < 0)
        return -errno;
    int fd = open(p->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

/* Addresses of people are in there: for us, and for the children's group (the api reads events). */
static int open_for_append(const struct paths *p, const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return -errno;
    if (p->group != getegid() && fchown(fd, (uid_t)-1, p->group) < 0)
        log_warn("%s: %s: the api cannot read it", path, strerror(errno));
    return fd;
}

int paths_open_log(const struct paths *p)
{
    char path[PATHS_BYTES + 32];
    if (p->log[0] == '\0') {
        int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? -errno : fd;
    }
    snprintf(path, sizeof path, "%s/mochila.log", p->log);
    return open_for_append(p, path);
}

int paths_open_events(const struct paths *p, uint32_t worker)
{
    char path[PATHS_BYTES + 32];
    if (p->log[0] == '\0') {
        int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
    }
    snprintf(path, sizeof path, "%s/events-%u.jsonl", p->log, worker);
    return open_for_append(p, path);
}
