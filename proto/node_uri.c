/* node_uri - see node_uri.h. */
#include "proto/node_uri.h"

#include <errno.h>
#include <stdio.h>

static const char scheme[] = "mochila://";

bool node_name_ok(struct span s)
{
    if (s.n < 1 || s.n > LIMIT_NAME_BYTES || s.p[0] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

/* The part up to the next '/' (or the end), which is taken away with it. */
static struct span next_part(struct span *s, bool *more)
{
    const uint8_t *slash = s->n > 0 ? memchr(s->p, '/', s->n) : NULL;
    size_t n = slash != NULL ? (size_t)(slash - s->p) : s->n;
    struct span part = span_of(s->p, n);
    *more = slash != NULL;
    *s = span_skip(*s, slash != NULL ? n + 1 : n);
    return part;
}

static void copy(char *out, struct span s)
{
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

int node_uri_parse(struct span s, struct node_uri *out)
{
    bool more;
    size_t head = sizeof scheme - 1;

    if (s.n <= head || memcmp(s.p, scheme, head) != 0)
        return -EINVAL;
    s = span_skip(s, head);
    struct span cluster = next_part(&s, &more);
    if (!more || !node_name_ok(cluster))
        return -EINVAL;
    struct span role = next_part(&s, &more);
    if (!more || role.n < 1 || role.n > NODE_ROLE_BYTES || !node_name_ok(role))
        return -EINVAL;
    if (!node_name_ok(s))
        return -EINVAL;
    copy(out->cluster, cluster);
    copy(out->role, role);
    copy(out->name, s);
    return 0;
}

void node_uri_format(const char *cluster, const char *name, char out[NODE_URI_BYTES])
{
    MUST(node_name_ok(span_str(cluster)));
    MUST(node_name_ok(span_str(name)));
    int n = snprintf(out, NODE_URI_BYTES, "%s%s/node/%s", scheme, cluster, name);
    MUST(n > 0);
    MUST(n < NODE_URI_BYTES);
}
