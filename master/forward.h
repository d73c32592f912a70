/*
 * forward - an order that is another node's to carry out: asked there once, answered here.
 *
 * Owner:  the master; whoever asked hears the other node's answer, or that there is none.
 * Never:  passes on what another node passed on to us.
 *
 * The order stands in the audit log of both nodes: here with what became of it, there with who we
 * are.
 */
#ifndef MASTER_FORWARD_H
#define MASTER_FORWARD_H

#include "proto/control.h"

struct master;

/* Query `f` of the api goes to `node`. Its answer, or an error, comes in any case. */
void forward_order(struct master *m, const char *node, const struct control_frame *f);

#endif
