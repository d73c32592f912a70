/*
 * ballast - room kept for state.db: a file beside it that is given up when the disk is full.
 *
 * A node that has to start on a full disk counts its boot in state.db first; without this it could
 * not, and would not deliver the mail whose leaving would make room.
 */
#ifndef MASTER_BALLAST_H
#define MASTER_BALLAST_H

#include <stdbool.h>

/* Gives the room up. True: there was some. */
bool ballast_drop(const char *state_db);
/* Makes the file if it is not there and there is room; no error is one. */
void ballast_keep(const char *state_db);

#endif
