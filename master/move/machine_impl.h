/*
 * machine_impl - what the two sides of the machine share; nobody else includes this.
 *
 * A handler answers with the next state; what a state does on entry and repeats is its `say`.
 */
#ifndef MASTER_MOVE_MACHINE_IMPL_H
#define MASTER_MOVE_MACHINE_IMPL_H

#include "master/move/machine.h"

/* MOVE_BUG=n builds a machine with one rule broken: the simulation must find each. */
#ifndef MOVE_BUG
#define MOVE_BUG 0
#endif

typedef enum move_state move_handler(struct lane_move *l);

/* Rows of the table, one for each state, by event; NULL: nothing to do. */
extern move_handler *const give_table[MOVE_STATE_COUNT][MOVE_EVENT_COUNT];
extern move_handler *const take_table[MOVE_STATE_COUNT][MOVE_EVENT_COUNT];
/* What a state says when it is entered and every MOVE_REPEAT_MS (again: not on entry). */
void give_say(struct lane_move *l, bool again);
void take_say(struct lane_move *l, bool again);

/* The record of the lane; there always is one. */
struct lane_record *machine_record(const struct lane_move *l);
bool machine_is_us(const struct lane_move *l, const char *node);
void machine_send(struct lane_move *l, enum move_kind kind, uint32_t epoch);
void machine_order(struct lane_move *l, enum lane_op op);
/* Asks netd, unless it was asked already or refused a moment ago. */
void machine_ask(struct lane_move *l, enum netd_action action);
/* Is what came from netd the answer to this question? */
bool machine_answered(const struct lane_move *l, enum netd_action action);
void machine_fault(const struct lane_move *l, unsigned step, bool after);
/* Queues a change of the record; `c` begins as the record is. */
void machine_change(struct lane_move *l, const struct lane_change *c);
/* Keeps the first reason that was given. */
void machine_reason(struct lane_move *l, const char *why);
enum move_state machine_over(struct lane_move *l, enum move_outcome outcome);
/* Milliseconds in this state. */
uint64_t machine_ms(const struct lane_move *l);
/* True once in MOVE_SLOW_MS. */
bool machine_slow(struct lane_move *l);

#endif
