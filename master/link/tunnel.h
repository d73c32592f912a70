/*
 * tunnel - one TLS connection to a peer's link, and the local ipc connection that it carries.
 *
 * Owner:  peers.c, from accept or dial to the first TUNNEL_LOST.
 * Input:  readiness of its two descriptors, and the time.
 * Never:  looks into what it carries; blocks; speaks with the ipc end before the peer is known.
 *
 * After the handshake the dialling side sends eight bytes: "mochila" and the channel. From there on
 * the two ends carry nanomsg's bytes, back-pressure included: each direction has one buffer, and is
 * read only when that is empty.
 */
#ifndef LINK_TUNNEL_H
#define LINK_TUNNEL_H

#include "base/net.h"
#include "master/link/trust.h"
#include "proto/link_frame.h"

#include <poll.h>

enum {
    TUNNEL_CONNECT_MS = 3000,
    TUNNEL_GREET_MS = 5000, /* for the handshake and the eight bytes: no slow-loris */
    TUNNEL_POLLS = 2,
};
enum tunnel_news {
    TUNNEL_NOTHING,
    TUNNEL_KNOWN, /* peer and channel are known: tunnel_attach, or tunnel_destroy */
    TUNNEL_LOST   /* why tells; tunnel_destroy */
};
enum tunnel_state {
    TUNNEL_CONNECTING, /* dialled: TCP */
    TUNNEL_SHAKING,    /* TLS */
    TUNNEL_NAMING,     /* the eight bytes */
    TUNNEL_WAITING,    /* known, not yet attached */
    TUNNEL_CARRYING,
    TUNNEL_STATE_COUNT
};

struct tunnel_half;
struct tunnel {
    enum tunnel_state state;
    bool dialled;
    bool again; /* has more to do without waiting */
    char peer[LIMIT_NAME_BYTES + 1];
    enum link_channel channel;
    struct ip remote, local;
    uint16_t remote_port;
    uint64_t deadline_ms; /* until TUNNEL_WAITING */
    char why[TRUST_WHY_BYTES];
    unsigned poll_at; /* the owner's: its first entry */
    /* Private. */
    struct trust *trust;
    SSL *ssl;
    int tcp_fd, ipc_fd;
    short tcp_events, ipc_events;
    unsigned named; /* of the eight bytes */
    uint8_t naming[8];
    struct tunnel_half *in, *out;
};
struct tunnel_target {
    char peer[LIMIT_NAME_BYTES + 1];
    enum link_channel channel;
    struct ip address, source; /* source ::: as the kernel chooses */
    uint16_t port;
};

/* Takes an accepted connection; NULL (fd closed): no memory. */
struct tunnel *tunnel_accept(struct trust *t, int fd, uint64_t now_ms);
/* Begins to connect; NULL with *why: it cannot even be tried. */
struct tunnel *tunnel_dial(struct trust *t, const struct tunnel_target *to, uint64_t now_ms,
                           struct text *why);
void tunnel_destroy(struct tunnel **t);
/* The pair that it is for, by its socket file. 0 or -errno. */
NODISCARD int tunnel_attach(struct tunnel *t, const char *ipc_name);
/* What to wait for; returns how many of the entries it used. */
unsigned tunnel_polls(const struct tunnel *t, struct pollfd out[TUNNEL_POLLS]);
/* Does what can be done without waiting. */
enum tunnel_news tunnel_run(struct tunnel *t, uint64_t now_ms);

#endif
