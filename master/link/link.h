/*
 * link - what the rooms of mochila-link share: the process, its peers and their channels.
 *
 * Private to master/link.
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "config/config.h"
#include "master/link/carrier.h"
#include "master/link/pair.h"
#include "master/link/quiet.h"
#include "master/link/session.h"
#include "master/link/tunnel.h"
#include "proto/control.h"

enum {
    LINK_STRANGERS = 64, /* connections whose peer is not known yet */
    LINK_STRANGERS_OF_ADDRESS = 16,
    LINK_DIAL_FIRST_MS = 100,
    LINK_DIAL_MAX_MS = 2000,
    LINK_LISTEN_RETRY_MS = 500, /* the process before this one may still be ending */
};

struct link;
struct peer;
struct channel {
    struct session session;
    struct pair pair;
    struct tunnel *tunnel; /* NULL: none; dialled ones from the first moment */
    struct peer *peer;
    struct link *link;
    uint64_t attached_ms;
    uint64_t dial_ms; /* not before */
    uint32_t dial_wait_ms;
    bool blocked;   /* the pair is full: wait for its send_fd */
    char said[200]; /* the last failure in the log, so that it is not repeated */
};
struct peer {
    char name[LIMIT_NAME_BYTES + 1];
    struct ip address;
    uint16_t port;
    bool dials_us; /* its name sorts after ours */
    struct channel channels[LINK_CHANNEL_COUNT];
    struct carrier_peer carrier;
};

/* Frames for the master that its socket did not take yet. */
struct outgoing {
    struct outgoing *next;
    size_t n;
    uint8_t bytes[];
};
struct outbox {
    struct outgoing *first, *last;
    size_t bytes;
};

struct link {
    int control_fd;
    bool blocked; /* the master's socket is full */
    struct outbox outbox;
    struct config *config;
    struct trust *trust;
    uint64_t incarnation, generation;
    int listen_fd;
    struct ip listen_address;
    uint16_t listen_port;
    uint64_t listen_ms; /* not before */
    struct tunnel *strangers[LINK_STRANGERS];
    struct quiet quiet;
    struct peer peers[LIMIT_PEERS];
    unsigned peer_count;
    struct carriers carriers;
    uint64_t now_ms;
    bool drained;
};

#endif
