/* place - see place.h. */
#include "master/link/place.h"

#include "base/log.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int find_ids(const struct config *c, uid_t *uid, gid_t *gid)
{
    const struct passwd *p = getpwnam(c->user);
    const struct group *g = c->group[0] != '\0' ? getgrnam(c->group) : NULL;
    if (p == NULL || (c->group[0] != '\0' && g == NULL)) {
        log_err("there is no account \"%s\" with group \"%s\"", c->user, c->group);
        return -ENOENT;
    }
    *uid = p->pw_uid;
    *gid = g != NULL ? g->gr_gid : p->pw_gid;
    return 0;
}

/* A directory that others could write to would let them take a pair's only seat. */
static int enter(const char *path, uid_t uid, gid_t gid)
{
    struct stat st;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    if (lstat(path, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    if (chown(path, uid, gid) < 0 || chmod(path, 0700) < 0 || chdir(path) < 0)
        return -errno;
    return 0;
}

int place_enter(const struct config *c)
{
    char path[sizeof c->run + 8];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    bool drop = uid == 0 && c->user[0] != '\0';

    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)snprintf(path, sizeof path, "%s/link", c->run);
    int r = drop ? find_ids(c, &uid, &gid) : 0;
    if (r < 0)
        return r;
    r = enter(path, uid, gid);
    if (r < 0) {
        log_err("%s: %s", path, strerror(-r));
        return r;
    }
    if (drop &&
        (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)) {
        r = -errno;
        log_err("cannot become user %s: %s", c->user, strerror(-r));
        return r;
    }
    MUST(geteuid() == uid);
    return 0;
}
