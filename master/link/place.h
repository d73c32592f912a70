/*
 * place - where the process works, and as whom: RUN/link, a directory of its own with mode 0700,
 * and the account of `user`.
 */
#ifndef LINK_PLACE_H
#define LINK_PLACE_H

#include "config/config.h"

/* Makes the directory, enters it, and drops privileges. 0 or -errno after a line in the log. */
NODISCARD int place_enter(const struct config *c);

#endif
