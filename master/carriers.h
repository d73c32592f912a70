/*
 * carriers - streams between this node's workers and its link process, for what workers of two
 * nodes have to say to each other.
 *
 * The process that holds a slot's shards has one end, the link the other; a pair is made anew when
 * either of the two was: whoever streams hears that it was broken, and begins anew.
 */
#ifndef MASTER_CARRIERS_H
#define MASTER_CARRIERS_H

struct master;
struct proc;

/* The link is READY: a stream for each slot that has a holder. */
void carriers_link_ready(struct master *m);
/* The worker holds its shards. */
void carriers_worker_ready(struct proc *p);

#endif
