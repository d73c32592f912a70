/*
 * top - one frame of `mochila top`, made of two samples of the counters and the queue's groups.
 *
 * Drawing is pure: samples in, text out; the loop, the terminal and the keys are in cmd_top.c.
 */
#ifndef CTL_TOP_H
#define CTL_TOP_H

#include "ctl/view.h"

enum top_by { TOP_LANE, TOP_SITE, TOP_TENANT };

struct top_frame {
    const json_t *before; /* answers of /v1/stats; NULL: no rates yet */
    const json_t *now;
    const json_t *queue; /* answer of /v1/queue by site or tenant, or NULL */
    enum top_by by;
    unsigned rows; /* lines to fill; 0 = no bound but TOP_ROWS of each table */
};

enum { TOP_ROWS = 10 };

const char *top_by_word(enum top_by by);
/* Draws the frame; never more than f->rows lines when that is set. */
void top_draw(const struct view *v, const struct top_frame *f);
/* Seconds below which this share of the samples between two histograms lies; 0 without samples. */
double top_quantile(const json_t *before, const json_t *now, double share);

#endif
