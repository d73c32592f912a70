/*
 * paths - directories, locks and files of a node.
 *
 * - spool, 0700 (0711 when the workers run as another user): state.db, and a directory for each
 *   shard that belongs to the workers' user. The spool itself stays the master's: a worker cannot
 *   touch state.db.
 * - run, 0755: mochilad.pid. Belongs to the children's user, since the api makes its socket there.
 * - log, 0755: mochila.log and events-<worker>.jsonl (0640), opened by the master.
 *
 * All errors are lines for people in `errors`.
 */
#ifndef MASTER_PATHS_H
#define MASTER_PATHS_H

#include "config/config.h"

enum { PATHS_BYTES = 300 };

struct paths {
    char binaries[PATHS_BYTES]; /* the directory of the children's programs */
    char state_db[PATHS_BYTES];
    char spool[PATHS_BYTES], log[PATHS_BYTES];
    uid_t user; /* of the children; ours when none is configured */
    gid_t group;
    int spool_lock, run_lock;
};

/* Finds the programs of the children; to be called before our own may be replaced. */
NODISCARD int paths_init(struct paths *p, struct text *errors);
/*
 * Makes what is missing, refuses a spool that does not survive a reboot (unless allowed), takes the
 * locks of spool and run directory. -EBUSY: another mochilad has them.
 */
NODISCARD int paths_prepare(struct paths *p, const struct config *c, bool allow_volatile,
                            struct text *errors);
void paths_fini(struct paths *p);
/* The directory of a shard, made durable, for the children's user. */
NODISCARD int paths_make_shard(const struct paths *p, uint32_t shard);
/* mochila.log, or standard error when no log directory is configured. -errno. */
NODISCARD int paths_open_log(const struct paths *p);
/* events-<worker>.jsonl for appending, or /dev/null. -errno. */
NODISCARD int paths_open_events(const struct paths *p, uint32_t worker);

#endif
