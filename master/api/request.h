/*
 * request - one HTTP request from its first byte to its answer.
 *
 * Owner:  http.c, through libmicrohttpd's per-connection pointer.
 * States: READING (head and body come in), WAITING (suspended: a query or a scan is under way),
 *         ANSWERED (resumed: the answer goes out). Only http.c changes the state.
 */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include "master/api/answer.h"
#include "master/api/args.h"
#include "master/api/query.h"
#include "master/api/trace.h"

struct MHD_Connection;

enum { REQUEST_BODY_BYTES = 16 << 10, REQUEST_DISCARD_BYTES = 1 << 20 };

enum request_state { REQUEST_READING, REQUEST_WAITING, REQUEST_ANSWERED };
enum request_wait { WAIT_NOTHING, WAIT_QUERY, WAIT_TRACE };

struct request {
    enum request_state state;
    enum request_wait wait;
    struct MHD_Connection *connection;
    bool tcp;
    bool resumed;
    struct args args;
    char error[ARGS_ERROR_BYTES]; /* of the arguments; "" = none */
    char body[REQUEST_BODY_BYTES];
    size_t body_bytes;
    size_t discarded_bytes;
    struct query query;
    struct trace *trace;
    struct answer answer;
    struct request *next, *prev; /* in the list of those that wait */
};

#endif
