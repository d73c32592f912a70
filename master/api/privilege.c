/* privilege - see privilege.h. */
#include "master/api/privilege.h"

#include "base/log.h"
#include "master/api/http.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

static int find_ids(const struct config *c, uid_t *uid, gid_t *gid)
{
    const struct passwd *p = getpwnam(c->user);
    if (p == NULL) {
        log_err("user: there is no account \"%s\"", c->user);
        return -ENOENT;
    }
    *uid = p->pw_uid;
    *gid = p->pw_gid;
    if (c->group[0] == '\0')
        return 0;
    const struct group *g = getgrnam(c->group);
    if (g == NULL) {
        log_err("group: there is no group \"%s\"", c->group);
        return -ENOENT;
    }
    *gid = g->gr_gid;
    return 0;
}

int privilege_drop(const struct config *c, const struct http *h)
{
    uid_t uid;
    gid_t gid;

    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (geteuid() != 0 || c->user[0] == '\0')
        return 0;
    int r = find_ids(c, &uid, &gid);
    if (r < 0)
        return r;
    r = http_chown(h, uid, gid);
    if (r == 0 &&
        (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0))
        r = -errno;
    if (r < 0) {
        log_err("cannot become user %s: %s", c->user, strerror(-r));
        return r;
    }
    MUST(geteuid() == uid);
    return 0;
}
