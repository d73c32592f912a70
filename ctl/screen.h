/*
 * screen - a block of lines that is drawn again in its place, and the keys that end it.
 *
 * For commands that follow something on the ordinary screen: what was there before stays above.
 * Without a capable terminal nothing is drawn here: the caller prints lines instead.
 */
#ifndef CTL_SCREEN_H
#define CTL_SCREEN_H

#include "ctl/view.h"

struct screen {
    const struct view *view;
    unsigned drawn; /* lines of the last block */
};

/* True when the view is a terminal that can go back over its lines. */
bool screen_capable(const struct view *v);
/* Lines that a block may have so that none of it scrolls away. */
unsigned screen_rows(void);
/* Draws `text` over the block before; lines are cut to the width. No colours in `text`. */
void screen_draw(struct screen *s, const char *text);

/* From here on ^C, TERM and HUP end the waiting instead of the process. */
void screen_catch(void);
void screen_release(void);
bool screen_stopped(void);
/* Sleeps, at most until one of those signals. */
void screen_wait(unsigned ms);

#endif
