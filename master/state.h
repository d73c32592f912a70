/*
 * state - state.db: what the master must remember over restarts. One SQLite file, WAL,
 * synchronous=FULL.
 *
 * Owner:  the master alone writes; anybody may read it with sqlite3.
 * Holds:  boot counter, lanes with their numbers and shards, holds, poisoned messages, audit log.
 * Never:  the mail queue.
 *
 * Every function that changes something returns only when the change is durable. Failures are -EIO
 * (-ENOSPC when the disk is full) and leave one sentence in state_error().
 */
#ifndef MASTER_STATE_H
#define MASTER_STATE_H

#include "base/net.h"
#include "proto/control.h"

struct state;

struct state_lane {
    uint32_t id; /* stable for ever, from 1; never reused */
    int32_t shard;
    uint32_t epoch;
    bool retired; /* no longer configured; its queue may live on */
    enum lane_role role;
    uint32_t owner_slot; /* CONTROL_NO_SLOT: not known */
    uint64_t move;       /* 0: none */
    struct ip address;
    char pool[LIMIT_NAME_BYTES + 1];
    char owner[LIMIT_NAME_BYTES + 1]; /* node; "" only in a file of the first schema: this one */
};
/* Who owned the lane, and who owns it from now on. */
struct state_swap {
    uint32_t id;
    uint32_t epoch_before, epoch, owner_slot;
    const char *owner_before, *owner;
    enum lane_role role;
    uint64_t move;
};
struct state_poison {
    struct msg_id id;
    uint32_t deaths;
    bool parked;
};
struct state_audit {
    int64_t unix_s;
    char who[64], what[320], result[160];
};
enum { STATE_POISON_DEATHS = 2 };

/* Opens or makes the file; -EIO: damaged or unreadable, -EILSEQ: written by a newer version. */
NODISCARD int state_open(const char *path, struct state **out);
void state_close(struct state **s);
/* Why the last call failed. */
const char *state_error(const struct state *s);

/* Adds one to the boot counter, durably, and returns it in *boot (from 1). */
NODISCARD int state_boot(struct state *s, uint64_t *boot);

/* All lanes ever known, by id; *out is malloc'd. */
NODISCARD int state_lanes(struct state *s, struct state_lane **out, size_t *count);
/*
 * Makes the lanes what is given, in one transaction: entries with id 0 are added and get their id,
 * others have pool, shard, epoch, retired and owner written. Role and the rest of an owner are
 * state_lanes_swap's.
 */
NODISCARD int state_lanes_save(struct state *s, struct state_lane *lanes, size_t count);
/*
 * All of them in one transaction, or none: -ESTALE when a lane's owner and epoch are not those
 * before.
 */
NODISCARD int state_lanes_swap(struct state *s, const struct state_swap *swaps, size_t count);

/* At most LIMIT_HOLDS, oldest first; *out is malloc'd. */
NODISCARD int state_holds(struct state *s, struct control_hold **out, uint32_t *count);
/* A hold of the same scope is replaced. -ENOSPC is the disk's; -E2BIG: LIMIT_HOLDS reached. */
NODISCARD int state_hold_add(struct state *s, const struct control_hold *h);
/* *removed: how many there were. */
NODISCARD int state_hold_remove(struct state *s, const char *kind, const char *value,
                                uint32_t *removed);

/* One more death while the worker was at this message; *deaths counts this one too. */
NODISCARD int state_poison_death(struct state *s, struct msg_id id, uint32_t *deaths);
/* Messages with STATE_POISON_DEATHS or more, the LIMIT_POISON newest; *out is malloc'd. */
NODISCARD int state_poison_parked(struct state *s, struct msg_id **out, uint32_t *count);

/* The operator wants the message tried again. */
NODISCARD int state_poison_forget(struct state *s, struct msg_id id);

NODISCARD int state_audit_add(struct state *s, const char *who, const char *what,
                              const char *result);
/* The newest `limit` lines, newest first; *out is malloc'd. */
NODISCARD int state_audit_list(struct state *s, uint32_t limit, struct state_audit **out,
                               uint32_t *count);

#endif
