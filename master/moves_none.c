/*
 * moves_none - a master without moves: nothing is under way, and none can be asked for.
 *
 * Weak: the room of moves, once it is linked, is in force.
 */
#include "master/move/move.h"

#include "master/proc.h"

#define WEAK __attribute__((weak))

WEAK int moves_open(struct master *m)
{
    (void)m;
    return 0;
}

WEAK void moves_close(struct master *m)
{
    (void)m;
}

WEAK void moves_turn(struct master *m)
{
    (void)m;
}

WEAK uint64_t moves_deadline(const struct master *m)
{
    (void)m;
    return 0;
}

WEAK void move_on_lane(struct master *m, struct proc *p, const struct control_lane_order *o)
{
    (void)m;
    (void)p;
    (void)o;
}

WEAK void move_on_frame(struct master *m, const char *node, struct span bytes)
{
    (void)m;
    (void)node;
    (void)bytes;
}

WEAK void moves_on_peer(struct master *m, const char *node, bool up)
{
    (void)m;
    (void)node;
    (void)up;
}

WEAK void moves_on_worker(struct master *m, struct proc *p)
{
    (void)m;
    (void)p;
}

WEAK bool moves_tail_of(const struct master *m, uint32_t lane, struct move_tail *out)
{
    (void)m;
    (void)lane;
    (void)out;
    return false;
}

WEAK void moves_verb(struct master *m, const struct control_frame *f)
{
    proc_answer_error(m->api, f->id, 501, "this build moves no lanes");
}
