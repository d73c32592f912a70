/*
 * fault - deaths on demand, so that tests can see what the node does about them.
 *
 * Exists only where MOCHILA_FAULTS is defined: debug and sanitizer builds, never a release. What is
 * to happen stands in the environment: MOCHILA_FAULT=die-on-rcpt=poison@*
 */
#ifndef WORKER_FAULT_H
#define WORKER_FAULT_H

#include "base/span.h"

#ifdef MOCHILA_FAULTS
/* Aborts when a delivery to one of the recipients is what the environment names (a shell pattern).
 */
void fault_on_rcpts(const struct span *rcpts, unsigned count);
#endif

#endif
