/* forward - see forward.h. */
#include "master/netd/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BATCH_BYTES = 2 << 20, /* LIMIT_LANES elements and the rules */
    ANSWER_BYTES = 16 << 10,
    ANSWERS_MAX = 64,
    NAME_BYTES = 32,
    IP4_DESTINATION = 16, /* offsets in the network header */
    IP6_DESTINATION = 24,
    TCP_DESTINATION = 2,
    /* What `nft list` calls these types. */
    TYPE_IPV4_ADDR = 7,
    TYPE_IPV6_ADDR = 8,
    INGRESS_PRIORITY = 0,
};
static const char table_name[] = "mochila";

int forward_open(struct forward *f)
{
    struct sockaddr_nl name = {.nl_family = AF_NETLINK};
    int bytes = 2 * BATCH_BYTES;

    *f = (struct forward){.fd = -1};
    f->batch = nl_out_of(malloc(BATCH_BYTES), BATCH_BYTES, 1);
    if (f->batch.p == NULL)
        return -ENOMEM;
    f->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (f->fd < 0 || bind(f->fd, (struct sockaddr *)&name, sizeof name) < 0) {
        if (f->fd >= 0)
            close(f->fd);
        /* A kernel without nf_tables moves addresses all the same; every commit says EBADF. */
        f->fd = -1;
    }
    (void)setsockopt(f->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    (void)setsockopt(f->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    return 0;
}

void forward_close(struct forward *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->batch.p);
    *f = (struct forward){.fd = -1};
}

/* --- messages --- */

static void begin(struct forward *f, unsigned message, unsigned flags)
{
    struct nfgenmsg h = {.nfgen_family = NFPROTO_NETDEV, .version = NFNETLINK_V0};
    nl_begin(&f->batch, NFNL_SUBSYS_NFTABLES << 8 | message, flags, span_of(&h, sizeof h));
}

static void bracket(struct forward *f, unsigned type)
{
    struct nfgenmsg h = {.version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
    nl_begin(&f->batch, type, 0, span_of(&h, sizeof h));
    nl_end(&f->batch);
}

static void table_message(struct forward *f, unsigned message)
{
    begin(f, message, message == NFT_MSG_NEWTABLE ? NLM_F_CREATE : 0);
    nl_put_text(&f->batch, NFTA_TABLE_NAME, table_name);
    nl_end(&f->batch);
}

static void map_name(bool v4, uint16_t low, uint16_t high, char out[NAME_BYTES])
{
    (void)snprintf(out, NAME_BYTES, "v%c_%u_%u", v4 ? '4' : '6', low, high);
}

static void chain_name(unsigned ifindex, char out[NAME_BYTES])
{
    (void)snprintf(out, NAME_BYTES, "in_%u", ifindex);
}

static void map_message(struct forward *f, const struct forward_rule *r, const char *name)
{
    struct nl_out *o = &f->batch;
    uint32_t type = r->v4 ? TYPE_IPV4_ADDR : TYPE_IPV6_ADDR, bytes = r->v4 ? 4 : 16;
    begin(f, NFT_MSG_NEWSET, NLM_F_CREATE);
    nl_put_text(o, NFTA_SET_TABLE, table_name);
    nl_put_text(o, NFTA_SET_NAME, name);
    nl_put_be32(o, NFTA_SET_FLAGS, NFT_SET_MAP);
    nl_put_be32(o, NFTA_SET_KEY_TYPE, type);
    nl_put_be32(o, NFTA_SET_KEY_LEN, bytes);
    nl_put_be32(o, NFTA_SET_DATA_TYPE, type);
    nl_put_be32(o, NFTA_SET_DATA_LEN, bytes);
    nl_put_be32(o, NFTA_SET_ID, f->rule_count);
    nl_end(o);
}

static void chain_message(struct forward *f, struct forward_nic nic, const char *name)
{
    struct nl_out *o = &f->batch;
    begin(f, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    nl_put_text(o, NFTA_CHAIN_TABLE, table_name);
    nl_put_text(o, NFTA_CHAIN_NAME, name);
    size_t hook = nl_nest(o, NFTA_CHAIN_HOOK);
    nl_put_be32(o, NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
    nl_put_be32(o, NFTA_HOOK_PRIORITY, INGRESS_PRIORITY);
    nl_put_text(o, NFTA_HOOK_DEV, nic.name);
    nl_unnest(o, hook);
    nl_put_be32(o, NFTA_CHAIN_POLICY, NF_ACCEPT);
    nl_put_text(o, NFTA_CHAIN_TYPE, "filter");
    nl_end(o);
}

/* --- expressions of a rule --- */

struct expression {
    size_t element, data;
};

static struct expression expression_begin(struct nl_out *o, const char *name)
{
    struct expression e = {.element = nl_nest(o, NFTA_LIST_ELEM)};
    nl_put_text(o, NFTA_EXPR_NAME, name);
    e.data = nl_nest(o, NFTA_EXPR_DATA);
    return e;
}

static void expression_end(struct nl_out *o, struct expression e)
{
    nl_unnest(o, e.data);
    nl_unnest(o, e.element);
}

static void put_value(struct nl_out *o, unsigned type, struct span value)
{
    size_t nest = nl_nest(o, type);
    nl_put(o, NFTA_DATA_VALUE, value);
    nl_unnest(o, nest);
}

static void compare(struct nl_out *o, unsigned operator, struct span value)
{
    struct expression e = expression_begin(o, "cmp");
    nl_put_be32(o, NFTA_CMP_SREG, NFT_REG_1);
    nl_put_be32(o, NFTA_CMP_OP, operator);
    put_value(o, NFTA_CMP_DATA, value);
    expression_end(o, e);
}

static void compare_be16(struct nl_out *o, unsigned operator, uint16_t value)
{
    uint16_t be = htons(value);
    compare(o, operator, span_of(&be, sizeof be));
}

static void load_meta(struct nl_out *o, unsigned key)
{
    struct expression e = expression_begin(o, "meta");
    nl_put_be32(o, NFTA_META_DREG, NFT_REG_1);
    nl_put_be32(o, NFTA_META_KEY, key);
    expression_end(o, e);
}

static void load_payload(struct nl_out *o, unsigned base, unsigned offset, unsigned bytes)
{
    struct expression e = expression_begin(o, "payload");
    nl_put_be32(o, NFTA_PAYLOAD_DREG, NFT_REG_1);
    nl_put_be32(o, NFTA_PAYLOAD_BASE, base);
    nl_put_be32(o, NFTA_PAYLOAD_OFFSET, offset);
    nl_put_be32(o, NFTA_PAYLOAD_LEN, bytes);
    expression_end(o, e);
}

static void look_up(struct nl_out *o, const char *map)
{
    struct expression e = expression_begin(o, "lookup");
    nl_put_text(o, NFTA_LOOKUP_SET, map);
    nl_put_be32(o, NFTA_LOOKUP_SREG, NFT_REG_1);
    nl_put_be32(o, NFTA_LOOKUP_DREG, NFT_REG_2);
    expression_end(o, e);
}

static void send_on(struct nl_out *o, const struct forward_rule *r)
{
    uint32_t device = r->ifindex;
    struct expression e = expression_begin(o, "immediate");
    nl_put_be32(o, NFTA_IMMEDIATE_DREG, NFT_REG_1);
    put_value(o, NFTA_IMMEDIATE_DATA, span_of(&device, sizeof device));
    expression_end(o, e);
    e = expression_begin(o, "fwd");
    nl_put_be32(o, NFTA_FWD_SREG_DEV, NFT_REG_1);
    nl_put_be32(o, NFTA_FWD_SREG_ADDR, NFT_REG_2);
    nl_put_be32(o, NFTA_FWD_NFPROTO, r->v4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
    expression_end(o, e);
}

static void rule_message(struct forward *f, const struct forward_rule *r, const char *chain,
                         const char *map)
{
    struct nl_out *o = &f->batch;
    uint8_t tcp = IPPROTO_TCP;

    begin(f, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    nl_put_text(o, NFTA_RULE_TABLE, table_name);
    nl_put_text(o, NFTA_RULE_CHAIN, chain);
    size_t list = nl_nest(o, NFTA_RULE_EXPRESSIONS);
    load_meta(o, NFT_META_PROTOCOL);
    compare_be16(o, NFT_CMP_EQ, r->v4 ? ETH_P_IP : ETH_P_IPV6);
    load_meta(o, NFT_META_L4PROTO);
    compare(o, NFT_CMP_EQ, span_of(&tcp, 1));
    load_payload(o, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_DESTINATION, 2);
    compare_be16(o, NFT_CMP_GTE, r->port_low);
    compare_be16(o, NFT_CMP_LTE, r->port_high);
    load_payload(o, NFT_PAYLOAD_NETWORK_HEADER, r->v4 ? IP4_DESTINATION : IP6_DESTINATION,
                 r->v4 ? 4 : 16);
    look_up(o, map);
    send_on(o, r);
    nl_unnest(o, list);
    nl_end(o);
}

static void element_message(struct forward *f, unsigned message, const struct ip *address,
                            const struct netd_tail *tail)
{
    struct nl_out *o = &f->batch;
    char map[NAME_BYTES];
    bool v4 = ip_is_v4(address);
    size_t skip = v4 ? 12 : 0;

    map_name(v4, tail->port_low, tail->port_high, map);
    begin(f, message, message == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
    nl_put_text(o, NFTA_SET_ELEM_LIST_TABLE, table_name);
    nl_put_text(o, NFTA_SET_ELEM_LIST_SET, map);
    size_t list = nl_nest(o, NFTA_SET_ELEM_LIST_ELEMENTS);
    size_t element = nl_nest(o, NFTA_LIST_ELEM);
    put_value(o, NFTA_SET_ELEM_KEY, span_skip(span_of(address->b, 16), skip));
    if (message == NFT_MSG_NEWSETELEM)
        put_value(o, NFTA_SET_ELEM_DATA, span_skip(span_of(tail->peer.b, 16), skip));
    nl_unnest(o, element);
    nl_unnest(o, list);
    nl_end(o);
}

/* --- batches --- */

void forward_begin(struct forward *f)
{
    f->batch.n = 0;
    f->batch.bad = false;
    f->rule_count_before = f->rule_count;
    bracket(f, NFNL_MSG_BATCH_BEGIN);
}

void forward_flush(struct forward *f)
{
    /* Created first, so that there is one to delete. */
    table_message(f, NFT_MSG_NEWTABLE);
    table_message(f, NFT_MSG_DELTABLE);
    f->rule_count = 0;
}

void forward_rule_add(struct forward *f, struct forward_nic nic, const struct ip *family_of,
                      const struct netd_tail *slice)
{
    char map[NAME_BYTES], chain[NAME_BYTES];
    struct forward_rule r = {nic.ifindex, slice->port_low, slice->port_high, ip_is_v4(family_of)};

    MUST(r.port_low != 0);
    for (unsigned i = 0; i < f->rule_count; i++) {
        const struct forward_rule *k = &f->rules[i];
        if (k->ifindex == r.ifindex && k->v4 == r.v4 && k->port_low == r.port_low &&
            k->port_high == r.port_high)
            return;
    }
    if (f->rule_count == FORWARD_RULES_MAX) {
        f->batch.bad = true;
        return;
    }
    f->rules[f->rule_count++] = r;
    map_name(r.v4, r.port_low, r.port_high, map);
    chain_name(r.ifindex, chain);
    table_message(f, NFT_MSG_NEWTABLE);
    map_message(f, &r, map);
    chain_message(f, nic, chain);
    rule_message(f, &r, chain, map);
}

void forward_lane_add(struct forward *f, const struct ip *address, const struct netd_tail *tail)
{
    element_message(f, NFT_MSG_NEWSETELEM, address, tail);
}

void forward_lane_remove(struct forward *f, const struct ip *address, const struct netd_tail *tail)
{
    element_message(f, NFT_MSG_DELSETELEM, address, tail);
}

/* The first error among the answers. The kernel has written them all before send() returned. */
static int read_answers(const struct forward *f)
{
    uint8_t bytes[ANSWER_BYTES];
    struct nl_in m;
    int first = 0;

    for (unsigned i = 0; i < ANSWERS_MAX; i++) {
        ssize_t n = recv(f->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return first;
        if (n < 0)
            return first < 0 ? first : -errno;
        struct span rest = span_of(bytes, (size_t)n);
        while (nl_next(&rest, &m)) {
            if (m.type == NLMSG_ERROR && first == 0)
                first = m.error;
        }
    }
    return first;
}

int forward_commit(struct forward *f)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int r;

    bracket(f, NFNL_MSG_BATCH_END);
    if (f->batch.bad)
        r = -ENOSPC;
    else if (sendto(f->fd, f->batch.p, f->batch.n, 0, (struct sockaddr *)&kernel, sizeof kernel) <
             0)
        r = -errno;
    else
        r = read_answers(f);
    if (r < 0)
        f->rule_count = f->rule_count_before;
    return r;
}
