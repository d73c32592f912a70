/*
 * proc - a supervised process as the master sees it: spawning, START, frames, death.
 *
 * Owner:  the generation (workers) or the master (api). Its slot decides; this file does.
 * Input:  frames from its descriptor, its exit status.
 */
#ifndef MASTER_PROC_H
#define MASTER_PROC_H

#include "master/master.h"

/* NULL: no memory. Registered with the master until freed; it has no process then. */
struct proc *proc_create(struct master *m, struct generation *g, enum proc_kind kind,
                         uint32_t index);
void proc_free(struct proc **p);
void proc_event(struct proc *p, enum slot_event e);
/* Sends or queues; a process that does not read is marked broken, one that is gone is ignored. */
void proc_send(struct proc *p, const struct control_frame *f, const int *fds, unsigned fd_count);
/* The same with an encoded frame. */
void proc_send_bytes(struct proc *p, struct span bytes);
/* An {"error":...} of the master itself as the whole answer to question `id`. */
void proc_answer_error(struct proc *p, uint64_t id, int status, const char *text);
/* Reads what has come, at most PROC_FRAMES frames. */
void proc_readable(struct proc *p);
void proc_writable(struct proc *p);
/* The process was reaped. */
void proc_reaped(struct proc *p, int wait_status);
/* Punishes what was marked broken; to be called between events. */
void proc_settle(struct proc *p);

/*
 * start.c: the START frames of a process that was just spawned, or, to the api, of a reload.
 * -errno: the worker's event file cannot be opened.
 */
NODISCARD int start_send(struct proc *p);

#endif
