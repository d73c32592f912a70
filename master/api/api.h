/*
 * api - what the one thread of mochila-api works on.
 *
 * main.c owns it; control_link.c fills it from the master's frames; http.c serves from it.
 */
#ifndef API_API_H
#define API_API_H

#include "config/config.h"
#include "master/api/pages.h"
#include "master/api/request.h"

struct http;

struct api {
    int control_fd;
    uint64_t generation;
    uint64_t next_id;      /* of queries */
    struct config *config; /* NULL before the first START */
    struct pages pages;
    struct http *http;       /* NULL before the first START */
    bool ended;              /* the master is gone */
    struct request *waiting; /* suspended requests */
    unsigned resumed;        /* resumed ones whose answer has not gone out yet */
    unsigned resumed_ever;   /* counts resumes */
};

uint64_t clock_ms(void); /* CLOCK_MONOTONIC */
uint64_t clock_ns(void);

#endif
