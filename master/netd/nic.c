/* nic - see nic.h. */
#include "master/netd/nic.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    FRAME_BYTES = 2048,
    FRAMES_PER_TURN = 1024,
    NEXT_HEADER_AT = 14 + 6, /* in an Ethernet frame with IPv6 */
    ICMP_TYPE_AT = 14 + 40,
    ICMPV6_NUMBER = 58,
    ADVERTISEMENT = 136,
};

/* IPv6 traffic is everything: only neighbour advertisements shall come up here. */
static struct sock_filter advertisements[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NEXT_HEADER_AT),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ICMPV6_NUMBER, 0, 3),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, ICMP_TYPE_AT),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ADVERTISEMENT, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, FRAME_BYTES),
    BPF_STMT(BPF_RET | BPF_K, 0),
};

void nics_init(struct nics *all)
{
    memset(all, 0, sizeof *all);
    for (unsigned i = 0; i < NIC_COUNT_MAX; i++)
        all->list[i].fds[0] = all->list[i].fds[1] = -1;
}

static void close_nic(struct nic *n)
{
    for (unsigned i = 0; i < NIC_FDS; i++) {
        if (n->fds[i] >= 0)
            close(n->fds[i]);
        n->fds[i] = -1;
    }
    n->ifindex = 0;
    n->strict = false;
}

void nics_close(struct nics *all)
{
    for (unsigned i = 0; i < NIC_COUNT_MAX; i++)
        close_nic(&all->list[i]);
}

static int open_packet(unsigned ifindex, uint16_t type, const struct sock_fprog *filter)
{
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htons(type), .sll_ifindex = (int)ifindex};
    /* Protocol 0: nothing comes before the filter is there and bind names the interface. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if ((filter != NULL &&
         setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof *filter) < 0) ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
}

static int open_nic(struct nic *n, const char *name, unsigned ifindex)
{
    const struct sock_fprog filter = {ARRAY_COUNT(advertisements), advertisements};
    (void)snprintf(n->name, sizeof n->name, "%s", name);
    n->ifindex = ifindex;
    n->fds[0] = open_packet(ifindex, ETH_P_ARP, NULL);
    n->fds[1] = n->fds[0] < 0 ? n->fds[0] : open_packet(ifindex, ETH_P_IPV6, &filter);
    int e = n->fds[1];
    if (e < 0)
        close_nic(n);
    return e < 0 ? e : 0;
}

/* What the kernel says of it now. NULL, or why no lane can be there. */
static const char *examine(struct nic *n, const char *name)
{
    struct ifreq r = {.ifr_name = ""};
    const char *why = NULL;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return strerror(errno);
    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
        why = strerror(errno);
    else if ((r.ifr_flags & IFF_UP) == 0)
        why = "is down";
    else if ((r.ifr_flags & IFF_RUNNING) == 0)
        why = "has no carrier";
    else if (ioctl(fd, SIOCGIFHWADDR, &r) < 0 || r.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        why = "is not Ethernet";
    else
        memcpy(n->mac.b, r.ifr_hwaddr.sa_data, MAC_BYTES);
    close(fd);
    return why;
}

static struct nic *entry_of(struct nics *all, const char *name)
{
    struct nic *free_one = NULL;
    for (unsigned i = 0; i < NIC_COUNT_MAX; i++) {
        struct nic *n = &all->list[i];
        if (n->ifindex != 0 && strcmp(n->name, name) == 0)
            return n;
        if (n->ifindex == 0 && free_one == NULL)
            free_one = n;
    }
    return free_one;
}

struct nic *nic_get(struct nics *all, const char *name, char *reason, size_t reason_bytes)
{
    if (name[0] == '\0') {
        (void)snprintf(reason, reason_bytes, "driver l2 needs the lane's interface");
        return NULL;
    }
    unsigned ifindex = if_nametoindex(name);
    struct nic *n = entry_of(all, name);
    if (ifindex == 0 || n == NULL) {
        (void)snprintf(reason, reason_bytes,
                       ifindex == 0 ? "there is no interface %s" : "%s: too many interfaces", name);
        return NULL;
    }
    if (n->ifindex != 0 && n->ifindex != ifindex)
        close_nic(n); /* made anew under the old name */
    const char *why = examine(n, name);
    if (why == NULL && n->ifindex == 0) {
        int e = open_nic(n, name, ifindex);
        why = e < 0 ? strerror(-e) : NULL;
    }
    if (why != NULL)
        (void)snprintf(reason, reason_bytes, "interface %s: %s", name, why);
    return why == NULL ? n : NULL;
}

struct nic *nic_by_index(struct nics *all, unsigned ifindex)
{
    for (unsigned i = 0; i < NIC_COUNT_MAX; i++) {
        if (ifindex != 0 && all->list[i].ifindex == ifindex)
            return &all->list[i];
    }
    return NULL;
}

void nic_say(const struct nic *n, enum arp_kind kind, const struct ip *ip)
{
    uint8_t frame[ND_FRAME_BYTES];
    size_t bytes = arp_frame_write(kind, ip, &n->mac, frame);
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ip_is_v4(ip) ? ETH_P_ARP : ETH_P_IPV6),
                             .sll_ifindex = (int)n->ifindex,
                             .sll_halen = MAC_BYTES};
    memcpy(to.sll_addr, frame, MAC_BYTES);
    if (sendto(n->fds[ip_is_v4(ip) ? 0 : 1], frame, bytes, 0, (struct sockaddr *)&to, sizeof to) <
        0)
        log_warn("interface %s: cannot announce: %s", n->name, strerror(errno));
}

bool nic_hear(const struct nic *n, int fd, struct arp_claim *out)
{
    uint8_t frame[FRAME_BYTES];
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        ssize_t got = recv(fd, frame, sizeof frame, MSG_DONTWAIT);
        if (got < 0)
            return false;
        /* Our own announcements do not come back, but a looped switch port may do that. */
        if (arp_frame_read(span_of(frame, (size_t)got), out) && !mac_eq(&out->mac, &n->mac))
            return true;
    }
    return false;
}
