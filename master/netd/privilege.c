/* privilege - see privilege.h. */
#include "master/netd/privilege.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

static const cap_value_t kept[] = {CAP_NET_ADMIN, CAP_NET_RAW};

static bool is_kept(cap_value_t c)
{
    return c == kept[0] || c == kept[1];
}

/* What a program that root executes could get at most. */
static int shrink_bound(void)
{
    for (cap_value_t c = 0; c < cap_max_bits(); c++) {
        if (is_kept(c) || cap_get_bound(c) <= 0 || cap_drop_bound(c) == 0)
            continue;
        if (errno != EPERM)
            return -errno;
        log_warn("this container's root may not shrink its rights for good");
        break;
    }
    return 0;
}

/* Of the two, those that we have; inheritable as well, for the hook. */
static int keep_only(void)
{
    cap_t now = cap_get_proc(), set = cap_init();
    cap_flag_value_t have = CAP_CLEAR;
    int r = now == NULL || set == NULL ? -ENOMEM : 0;

    for (unsigned i = 0; r == 0 && i < ARRAY_COUNT(kept); i++) {
        if (cap_get_flag(now, kept[i], CAP_PERMITTED, &have) < 0)
            r = -errno;
        if (r == 0 && have == CAP_SET &&
            (cap_set_flag(set, CAP_PERMITTED, 1, &kept[i], CAP_SET) < 0 ||
             cap_set_flag(set, CAP_EFFECTIVE, 1, &kept[i], CAP_SET) < 0 ||
             cap_set_flag(set, CAP_INHERITABLE, 1, &kept[i], CAP_SET) < 0))
            r = -errno;
    }
    if (r == 0 && cap_set_proc(set) < 0)
        r = -errno;
    if (now != NULL)
        cap_free(now);
    if (set != NULL)
        cap_free(set);
    return r;
}

static int change_user(uint32_t uid, uint32_t gid)
{
    if (geteuid() != 0 || uid == 0)
        return 0;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return -errno;
    /* libcap's calls raise CAP_SETGID and CAP_SETUID themselves, and keep the permitted set. */
    if (cap_setgroups(gid, 0, NULL) < 0 || cap_setuid(uid) < 0)
        return -errno;
    return geteuid() == uid && getegid() == gid ? 0 : -EPERM;
}

int privilege_keep_net(uint32_t uid, uint32_t gid)
{
    int r = 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = -errno;
    if (r == 0 && geteuid() == 0)
        r = shrink_bound();
    if (r == 0)
        r = change_user(uid, gid);
    if (r == 0)
        r = keep_only();
    if (r < 0)
        log_err("cannot give away rights: %s", strerror(-r));
    return r;
}

int privilege_lend(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(kept); i++) {
        if (cap_set_ambient(kept[i], CAP_SET) < 0)
            return -errno;
    }
    return 0;
}
