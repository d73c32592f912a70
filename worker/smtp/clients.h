/*
 * clients - how many connections an address and its network have, and how fast they come (SRV-31).
 */
#ifndef WORKER_SMTP_CLIENTS_H
#define WORKER_SMTP_CLIENTS_H

#include "base/net.h"
#include "base/pool.h"
#include "base/table.h"
#include "config/config.h"

struct client_count {
    struct ip key; /* an address, or a network with its host bits cleared */
    bool is_net;
    uint32_t open;
    struct client_count *net;
};
/* Connections that came within a second. Apart from the counts, since it outlives the connections.
 */
struct client_rate {
    struct ip ip;
    uint32_t second;
    uint32_t count;
};
enum { CLIENT_RATE_SETS = 512, CLIENT_RATE_WAYS = 4 };
struct clients {
    struct client_rate rates[CLIENT_RATE_SETS][CLIENT_RATE_WAYS];
    struct pool counts;
    struct table by_key;
    const struct config *config;
};
NODISCARD int clients_init(struct clients *c, const struct config *config);
void clients_fini(struct clients *c);
/* One more connection; *refusal is a reply line when it is one too many, and then nothing is
 * counted. */
struct client_count *clients_enter(struct clients *c, const struct ip *ip, uint32_t now_s,
                                   const char **refusal);
void clients_leave(struct clients *c, struct client_count *n);

#endif
