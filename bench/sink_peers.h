/* sink_peers - who is there and who was there before: client addresses and the greylist. */
#ifndef BENCH_SINK_PEERS_H
#define BENCH_SINK_PEERS_H

#include "base/net.h"
#include "base/table.h"

/* A client's address and what came from it. */
struct sink_peer {
    struct ip ip;
    uint32_t open;
    uint64_t connections;
    uint64_t turned_away;
    uint64_t messages;
    uint64_t recipients;
};
struct sink_peers {
    struct sink_peer *items; /* index 1.. */
    uint32_t count;
    uint32_t cap;
    struct table by_ip;
};
/* The index of a peer, made when new; 0 when there is no memory. */
uint32_t sink_peers_have(struct sink_peers *p, const struct ip *ip);
void sink_peers_fini(struct sink_peers *p);

/* When a (client, sender, recipient) was seen first. */
struct greylist;
NODISCARD struct greylist *greylist_create(void);
void greylist_destroy(struct greylist **g);
/* True when the key has waited for delay_ms; its first call starts the wait. */
bool greylist_passes(struct greylist *g, uint64_t key, uint64_t at_ns, uint64_t delay_ms);
uint64_t greylist_key(const struct ip *ip, struct span sender, struct span rcpt);

#endif
