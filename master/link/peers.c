/* peers - see peers.h. */
#include "master/link/peers.h"

#include "base/log.h"
#include "base/text.h"
#include "master/link/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 32, LISTEN_BACKLOG = 64 };

/* "address:port" or "[address]:port", as the configuration's reader has made it. */
static void parse_endpoint(const char *text, struct ip *ip, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    MUST(colon != NULL);
    struct span host = span_of(text, (size_t)(colon - text));
    uint64_t n = 0;
    if (host.n > 2 && host.p[0] == '[')
        host = span_of(host.p + 1, host.n - 2);
    int r = ip_parse(host, ip);
    MUST(r == 0);
    r = span_to_u64(span_str(colon + 1), &n);
    MUST(r == 0);
    *port = (uint16_t)n;
}

/* The end of the process before this one may take a moment: tried again and again, said once. */
static void listen_again(struct link *l)
{
    static const int on = 1, off = 0;
    struct sockaddr_storage ss;
    socklen_t n;
    unsigned unsaid;

    if (l->listen_fd >= 0 || l->listen_port == 0 || l->now_ms < l->listen_ms)
        return;
    ip_to_sockaddr(&l->listen_address, l->listen_port, &ss, &n);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (fd >= 0 && bind(fd, (struct sockaddr *)&ss, n) == 0 && listen(fd, LISTEN_BACKLOG) == 0) {
        l->listen_fd = fd;
        log_note("listening for peers on %s", l->config->cluster.listen);
        return;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    l->listen_ms = l->now_ms + LINK_LISTEN_RETRY_MS;
    if (quiet_may_say(&l->quiet, span_str("listen"), l->now_ms, &unsaid))
        log_warn("cannot listen on %s: %s; trying again", l->config->cluster.listen,
                 strerror(error));
}

void peers_start(struct link *l)
{
    const struct config *c = l->config;
    for (uint32_t i = 0; i < c->cluster.peers.count; i++) {
        struct peer *p = &l->peers[l->peer_count++];
        memcpy(p->name, c->cluster.peers.item[i].name, sizeof p->name);
        parse_endpoint(c->cluster.peers.item[i].endpoint, &p->address, &p->port);
        p->dials_us = strcmp(p->name, c->node) > 0;
        for (unsigned k = 0; k < LINK_CHANNEL_COUNT; k++)
            channel_init(&p->channels[k], l, p, (enum link_channel)k);
    }
    if (c->cluster.listen[0] != '\0')
        parse_endpoint(c->cluster.listen, &l->listen_address, &l->listen_port);
    listen_again(l);
}

void peers_fini(struct link *l)
{
    for (unsigned i = 0; i < l->peer_count; i++) {
        for (unsigned k = 0; k < LINK_CHANNEL_COUNT; k++)
            channel_fini(&l->peers[i].channels[k]);
    }
    for (unsigned i = 0; i < LINK_STRANGERS; i++)
        tunnel_destroy(&l->strangers[i]);
    if (l->listen_fd >= 0)
        close(l->listen_fd);
    l->listen_fd = -1;
    trust_destroy(&l->trust);
}

struct channel *peers_channel(struct link *l, const char *peer, unsigned channel)
{
    MUST(channel < LINK_CHANNEL_COUNT);
    for (unsigned i = 0; i < l->peer_count; i++) {
        if (strcmp(l->peers[i].name, peer) == 0)
            return &l->peers[i].channels[channel];
    }
    return NULL;
}

/* One line for an address and a reason, however often it comes. */
static void say_refused(struct link *l, const struct tunnel *t, const char *why)
{
    char address[IP_TEXT], thing[IP_TEXT + TRUST_WHY_BYTES];
    unsigned unsaid;
    ip_format(&t->remote, address);
    (void)snprintf(thing, sizeof thing, "%s %s", address, why);
    if (!quiet_may_say(&l->quiet, span_str(thing), l->now_ms, &unsaid))
        return;
    if (unsaid > 0)
        log_warn("refused a connection from %s: %s (and %u more)", address, why, unsaid);
    else
        log_warn("refused a connection from %s: %s", address, why);
}

/* A place for a stranger: the oldest one gives way, so that silence does not lock anybody out. */
static int place_for(struct link *l, const struct ip *from)
{
    unsigned same = 0, oldest = 0;
    int free_place = -1;
    for (unsigned i = 0; i < LINK_STRANGERS; i++) {
        const struct tunnel *t = l->strangers[i];
        if (t == NULL) {
            free_place = (int)i;
            continue;
        }
        same += ip_eq(&t->remote, from);
        if (l->strangers[oldest] == NULL || t->deadline_ms < l->strangers[oldest]->deadline_ms)
            oldest = i;
    }
    if (same >= LINK_STRANGERS_OF_ADDRESS)
        return -1;
    if (free_place >= 0)
        return free_place;
    say_refused(l, l->strangers[oldest], "too many connections that say nothing");
    tunnel_destroy(&l->strangers[oldest]);
    return (int)oldest;
}

static void accept_some(struct link *l)
{
    for (unsigned i = 0; i < ACCEPTS_PER_TURN && l->listen_fd >= 0; i++) {
        int fd = accept4(l->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct tunnel *t = tunnel_accept(l->trust, fd, l->now_ms);
        if (t == NULL)
            continue;
        int at = place_for(l, &t->remote);
        if (at >= 0) {
            l->strangers[at] = t;
            continue;
        }
        say_refused(l, t, "too many connections of this address that say nothing");
        tunnel_destroy(&t);
    }
}

/* Its certificate is good; is it one that has reason to come here? */
static void introduce(struct link *l, struct tunnel *t)
{
    struct channel *c = peers_channel(l, t->peer, t->channel);
    char why[TRUST_WHY_BYTES];
    if (c == NULL) {
        (void)snprintf(why, sizeof why, "node %s is not among cluster.peers", t->peer);
    } else if (!c->peer->dials_us) {
        (void)snprintf(why, sizeof why, "node %s is for this node to connect to", t->peer);
    } else if (c->session.at.stream == 0) {
        (void)snprintf(why, sizeof why, "the channels of node %s are not opened yet", t->peer);
    } else {
        channel_adopt(c, t);
        return;
    }
    say_refused(l, t, why);
    tunnel_destroy(&t);
}

static void run_stranger(struct link *l, unsigned i)
{
    struct tunnel *t = l->strangers[i];
    switch (tunnel_run(t, l->now_ms)) {
    case TUNNEL_NOTHING:
        return;
    case TUNNEL_KNOWN:
        l->strangers[i] = NULL;
        introduce(l, t);
        return;
    case TUNNEL_LOST:
        say_refused(l, t, t->why);
        tunnel_destroy(&l->strangers[i]);
        return;
    }
}

void peers_run(struct link *l, const struct pollfd *polled)
{
    listen_again(l);
    for (unsigned i = 0; i < LINK_STRANGERS; i++) {
        const struct tunnel *t = l->strangers[i];
        /* Whoever says nothing shall cost nothing. */
        if (t != NULL &&
            (t->again || polled[t->poll_at].revents != 0 || l->now_ms >= t->deadline_ms))
            run_stranger(l, i);
    }
    accept_some(l);
    for (unsigned i = 0; i < l->peer_count; i++) {
        for (unsigned k = 0; k < LINK_CHANNEL_COUNT; k++) {
            channel_dial(&l->peers[i].channels[k]);
            channel_run(&l->peers[i].channels[k]);
        }
    }
}

unsigned peers_polls(struct link *l, struct pollfd *out, int *timeout_ms)
{
    unsigned n = 0;
    if (l->listen_fd >= 0)
        out[n++] = (struct pollfd){.fd = l->listen_fd, .events = POLLIN};
    else if (l->listen_port != 0 && (*timeout_ms < 0 || *timeout_ms > LINK_LISTEN_RETRY_MS))
        *timeout_ms = LINK_LISTEN_RETRY_MS;
    for (unsigned i = 0; i < LINK_STRANGERS; i++) {
        struct tunnel *t = l->strangers[i];
        if (t == NULL)
            continue;
        t->poll_at = n;
        n += tunnel_polls(t, out + n);
        uint64_t left = t->deadline_ms > l->now_ms && !t->again ? t->deadline_ms - l->now_ms : 0;
        if (*timeout_ms < 0 || left < (uint64_t)*timeout_ms)
            *timeout_ms = (int)left;
    }
    for (unsigned i = 0; i < l->peer_count; i++) {
        for (unsigned k = 0; k < LINK_CHANNEL_COUNT; k++)
            n += channel_polls(&l->peers[i].channels[k], out + n, timeout_ms);
    }
    MUST(n <= PEERS_POLLS);
    return n;
}
