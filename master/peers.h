/*
 * peers - tells the worker processes of each other, and gives each ordered pair its two rings.
 *
 * When process P is READY and process Q holds its shards (RECOVERED), P learns that mail for Q's
 * slot goes to Q, and Q that P will send. Both directions of that relation have a ring of their
 * own; the eventfds belong to the processes. Each relation is made exactly once; the end of a
 * process ends all of its relations.
 */
#ifndef MASTER_PEERS_H
#define MASTER_PEERS_H

struct proc;

void peers_ready(struct proc *p);
void peers_recovered(struct proc *q);
void peers_gone(struct proc *p);

#endif
