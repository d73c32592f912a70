/*
 * lane_table - whose each lane is, as this node knows it: state.db in memory.
 *
 * For a lane that is ours, this record is the arbiter: a change of owner or epoch is one
 * transaction of state.db, and nobody hears of it before it is durable. For another node's lane it
 * is what that node said last. A lane is its address; `number` and `shard` are this node's own, for
 * ever.
 *
 * Owner:  the master; records stay where they are until the master ends.
 * Never:  decides a move (master/move), or speaks with netd (netd_client).
 */
#ifndef MASTER_LANE_TABLE_H
#define MASTER_LANE_TABLE_H

#include "base/table.h"
#include "master/state.h"

struct master;

struct lane_record {
    uint32_t number, shard, epoch;
    enum lane_role role;
    uint32_t owner_slot; /* worker on the owner's node; CONTROL_NO_SLOT: not known */
    uint64_t move;       /* of a lane in a move, or with open tails of one; 0: none */
    bool configured;     /* false: retired, or not configured here */
    bool run;            /* the address is here: attempts may start (of an owner) */
    bool acquiring;      /* netd was asked for the address */
    bool netd_tail;      /* netd keeps the address for open connections only */
    uint32_t acquire_failures;
    uint64_t acquire_ms;    /* when netd is asked (again); 0: it need not be */
    uint64_t version;       /* of its last change, for lane_table_tell */
    uint64_t queued, bytes; /* recipients, their messages: as the workers' pages said last */
    uint32_t alarmed_epoch; /* another node's claim that was told */
    struct ip address;
    char pool[LIMIT_NAME_BYTES + 1];
    char owner[LIMIT_NAME_BYTES + 1]; /* node, never "" */
    char why[160];                    /* an owner's lane does not run */
};
struct lane_table {
    struct lane_record **records; /* by number */
    uint32_t count;
    uint64_t version;
    struct table by_address, by_number; /* index + 1 */
};

/* One step of a lane's record. It is made only if owner and epoch are as expected. */
struct lane_change {
    uint32_t number;
    uint32_t epoch_before;
    char owner_before[LIMIT_NAME_BYTES + 1];
    uint32_t epoch, owner_slot;
    enum lane_role role;
    uint64_t move;
    char owner[LIMIT_NAME_BYTES + 1];
};

/*
 * Reads state.db anew: at start, and after lanes_place added or retired some. Records that were
 * there keep what is not in state.db. -ENOMEM, -EIO.
 */
NODISCARD int lane_table_load(struct master *m);
void lane_table_fini(struct lane_table *t);
/* The configuration in force has changed: addresses may have to be acquired, or need not be. */
void lane_table_configured(struct master *m);
/* NULL: no such lane was ever configured here. */
struct lane_record *lane_by_address(struct master *m, const struct ip *address);
struct lane_record *lane_by_number(struct master *m, uint32_t number);
/* Does this node own it (OWNER or FROZEN)? */
bool lane_is_ours(const struct lane_record *r);
/* For people: "owner", "frozen", "away", "replica". */
const char *lane_role_word(enum lane_role role);
/* Fills `c` with the record as it is: to be changed and handed to lane_table_change. */
void lane_change_of(const struct lane_record *r, struct lane_change *c);

/*
 * All changes or none, in one transaction, durable when this returns: then the records have
 * changed. -ESTALE: one of them is not as expected. -EINVAL: an epoch that goes back. -EIO,
 * -ENOSPC. A lane that is no OWNER any more does not run; one that becomes OWNER runs by lane_run.
 */
NODISCARD int lane_table_change(struct master *m, const struct lane_change *changes, uint32_t n);
/* The address is here (or not, with a reason): the record changes, and its worker hears SET. */
void lane_run(struct master *m, struct lane_record *r, bool run, const char *why);

/* Sends an order about this lane (`lane` is filled in) to the process that holds its shard.
   -EAGAIN: nobody does at the moment. */
NODISCARD int lane_order(struct master *m, const struct lane_record *r,
                         const struct control_lane_order *order);
/* The order SET with what the record says. */
void lane_order_set(const struct master *m, const struct lane_record *r,
                    struct control_lane_order *out);
/* Tells a process that holds its shards since now what has changed since its START. */
struct proc;
void lane_table_tell(struct master *m, struct proc *p);
/* What START says of a lane. */
void lane_place_of(const struct master *m, const struct lane_record *r, struct control_lane *out);

#endif
