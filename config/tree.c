/*
 * tree - see tree.h.
 *
 * Invariant: a node is linked to its parent before anything else happens to it, so that every error
 * can name its path. The stack of open lists and mappings is the chain of parents from `open`.
 */
#include "config/tree.h"

#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

enum { CHUNK_BYTES = 64 << 10, KEY_BYTES_MAX = 255, KEY_BYTES_SHOWN = 48, NODES_FOR_SETS = 4096 };

/* Texts of the nodes, many to a piece of memory. */
struct tree_chunk {
    struct tree_chunk *next;
    size_t used, cap;
    char p[];
};

/* What one run over a YAML text needs besides the tree. */
struct builder {
    struct tree *tree;
    struct report *report;
    struct node *top;  /* the document; NULL before it */
    struct node *open; /* innermost open list or mapping */
    const char *key;   /* of an open mapping: key that waits for its value */
    uint32_t key_line;
    uint32_t depth;
    uint32_t documents;
    const char *set; /* the override that is read; NULL: the file */
};

static char *keep_text(struct tree *t, struct span s)
{
    struct tree_chunk *c = t->chunks;
    if (c == NULL || c->cap - c->used < s.n + 1) {
        size_t cap = s.n + 1 > CHUNK_BYTES ? s.n + 1 : CHUNK_BYTES;
        c = malloc(sizeof *c + cap);
        if (c == NULL)
            return NULL;
        *c = (struct tree_chunk){t->chunks, 0, cap};
        t->chunks = c;
    }
    char *p = c->p + c->used;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    c->used += s.n + 1;
    return p;
}

/* Keys: (mapping, name). */
struct key_probe {
    const struct node *map;
    const char *name;
};

static uint32_t key_hash(const struct tree *t, const struct node *map, const char *name)
{
    return hash_bytes(span_str(name)) ^ hash_u64(pool_index(&t->nodes, map));
}

static bool key_eq(const void *ctx, uint32_t value, const void *key)
{
    const struct tree *t = ctx;
    const struct key_probe *probe = key;
    const struct node *n = pool_at(&t->nodes, value);
    return n->parent == probe->map && strcmp(n->name, probe->name) == 0;
}

struct node *tree_get(const struct tree *t, const struct node *map, const char *name)
{
    if (map == NULL || map->kind != NODE_MAP)
        return NULL;
    struct key_probe probe = {map, name};
    uint32_t i = table_find(&t->keys, key_hash(t, map, name), key_eq, t, &probe);
    return i == 0 ? NULL : pool_at(&t->nodes, i);
}

static int add_key(struct tree *t, struct node *n)
{
    return table_add(&t->keys, key_hash(t, n->parent, n->name), pool_index(&t->nodes, n));
}

static void link_child(struct node *parent, struct node *n)
{
    n->parent = parent;
    n->ordinal = parent->count++;
    if (parent->last == NULL)
        parent->first = n;
    else
        parent->last->next = n;
    parent->last = n;
}

void node_path(const struct node *n, struct text *out)
{
    const struct node *chain[TREE_DEPTH_MAX + 2];
    size_t depth = 0;
    for (; n->parent != NULL; n = n->parent) {
        MUST(depth < ARRAY_COUNT(chain));
        chain[depth++] = n;
    }
    for (size_t i = depth; i-- > 0;) {
        if (chain[i]->name == NULL) {
            text_fmt(out, "[%u]", chain[i]->ordinal);
            continue;
        }
        struct span name = span_str(chain[i]->name);
        text_puts(out, i + 1 < depth ? "." : "");
        text_put_clean(out, span_of(name.p, name.n < KEY_BYTES_SHOWN ? name.n : KEY_BYTES_SHOWN));
        text_puts(out, name.n < KEY_BYTES_SHOWN ? "" : "...");
    }
}

static uint32_t line_of(const struct builder *b, yaml_mark_t mark)
{
    return b->set != NULL ? 0 : (uint32_t)mark.line + 1;
}

/* Errors of the text itself, at a line where there is no node. */
static int fail(struct builder *b, uint32_t line, const char *what)
{
    if (b->set != NULL)
        report_set(b->report, b->set, "%s", what);
    else
        report_line(b->report, line, "%s", what);
    return -EINVAL;
}

/*
 * A new node at the place that is open. Its line is that of its key, if it has one. The second of
 * two equal keys is reported and not found by tree_get.
 */
static int add_node(struct builder *b, enum node_kind kind, uint32_t line, struct node **out)
{
    struct tree *t = b->tree;
    struct node *n = pool_get(&t->nodes);

    *out = n;
    if (n == NULL)
        return fail(b, line, "too many values for one file");
    n->kind = kind;
    n->line = b->key == NULL ? line : b->key_line;
    if (b->open == NULL) {
        b->top = n;
        return 0;
    }
    n->name = b->key;
    b->key = NULL;
    const struct node *first = n->name == NULL ? NULL : tree_get(t, b->open, n->name);
    link_child(b->open, n);
    if (n->name == NULL)
        return 0;
    if (first == NULL)
        return add_key(t, n);
    report_at(b->report, n, "given twice (first on line %u)", first->line);
    return 0;
}

/* Nothing that is configured needs more, and what is shown can then be read again as it was. */
static bool is_printable(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] >= 0x7f)
            return false;
    }
    return true;
}

static bool expects_key(const struct builder *b)
{
    return b->open != NULL && b->open->kind == NODE_MAP && b->key == NULL;
}

static int on_key(struct builder *b, struct span s, uint32_t line)
{
    if (s.n == 0 || s.n > KEY_BYTES_MAX || !is_printable(s))
        return fail(b, line, "a key is one word of 1 to 255 printable ASCII characters");
    b->key = keep_text(b->tree, s);
    b->key_line = line;
    return b->key == NULL ? -ENOMEM : 0;
}

/* Anchors and tags are refused, and what bears them is read on. */
static void refuse_extras(struct builder *b, const struct node *n, bool anchor, bool tag)
{
    if (anchor)
        report_at(b->report, n, "anchors (&name) are not taken; write the value where it is used");
    if (tag)
        report_at(b->report, n, "tags (!name) are not taken");
}

static int on_scalar(struct builder *b, const yaml_event_t *e)
{
    struct span s = span_of(e->data.scalar.value, e->data.scalar.length);
    uint32_t line = line_of(b, e->start_mark);
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    struct node *n;

    if (expects_key(b))
        return on_key(b, s, line);
    int rc = add_node(b, NODE_WORD, line, &n);
    if (rc < 0)
        return rc;
    refuse_extras(b, n, e->data.scalar.anchor != NULL, e->data.scalar.tag != NULL);
    if (plain && s.n == 0 && b->set == NULL) {
        n->kind = NODE_NOTHING;
        return 0;
    }
    if (!is_printable(s)) {
        report_at(b->report, n,
                  "holds a character other than printable ASCII, or runs over several lines");
        n->kind = NODE_BAD;
        return 0;
    }
    n->text = keep_text(b->tree, s);
    return n->text == NULL ? -ENOMEM : 0;
}

static int on_open(struct builder *b, enum node_kind kind, const yaml_event_t *e)
{
    uint32_t line = line_of(b, e->start_mark);
    bool list = kind == NODE_LIST;
    bool anchor =
        list ? e->data.sequence_start.anchor != NULL : e->data.mapping_start.anchor != NULL;
    bool tag = list ? e->data.sequence_start.tag != NULL : e->data.mapping_start.tag != NULL;
    struct node *n;

    if (expects_key(b))
        return fail(b, line, "a key is one word, not a list or mapping");
    if (b->depth == TREE_DEPTH_MAX)
        return fail(b, line, "nested too deep");
    int rc = add_node(b, kind, line, &n);
    if (rc < 0)
        return rc;
    refuse_extras(b, n, anchor, tag);
    b->open = n;
    b->depth++;
    return 0;
}

static int on_close(struct builder *b)
{
    MUST(b->open != NULL);
    MUST(b->depth > 0);
    b->open = b->open->parent;
    b->depth--;
    return 0;
}

static int on_alias(struct builder *b, const yaml_event_t *e)
{
    uint32_t line = line_of(b, e->start_mark);
    struct node *n;

    if (expects_key(b))
        return fail(b, line, "a key is one word, not an alias");
    int rc = add_node(b, NODE_BAD, line, &n);
    if (rc == 0)
        report_at(b->report, n,
                  "aliases (*name) are not taken; a value that begins with * needs "
                  "quotes");
    return rc;
}

static int on_document(struct builder *b, const yaml_event_t *e)
{
    if (b->documents++ > 0)
        return fail(b, line_of(b, e->start_mark), "one document only (--- stands twice)");
    return 0;
}

static int on_event(struct builder *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(b, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(b, NODE_LIST, e);
    case YAML_MAPPING_START_EVENT:
        return on_open(b, NODE_MAP, e);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(b);
    case YAML_ALIAS_EVENT:
        return on_alias(b, e);
    case YAML_DOCUMENT_START_EVENT:
        return on_document(b, e);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    }
    return 0;
}

/* libyaml's words, and ours where they help. */
static int fail_syntax(struct builder *b, const yaml_parser_t *p)
{
    const char *context = p->context == NULL ? "" : p->context;
    const char *problem = p->problem == NULL ? "no YAML" : p->problem;
    const char *hint = "";
    uint32_t line = (uint32_t)(p->problem_mark.line) + 1;

    if (p->error == YAML_MEMORY_ERROR)
        return -ENOMEM;
    if (strstr(context, "alias") != NULL)
        hint = "; a value that begins with * needs quotes";
    else if (strstr(problem, "cannot start any token") != NULL)
        hint = "; indent with blanks, not tabs, and quote values that begin with % @ or `";
    else if (p->error == YAML_READER_ERROR)
        hint = "; the file must be UTF-8 text";
    const char *colon = context[0] == '\0' ? "" : ": ";
    if (b->set != NULL)
        report_set(b->report, b->set, "YAML: %s%s%s%s", context, colon, problem, hint);
    else
        report_line(b->report, line, "YAML: %s%s%s%s", context, colon, problem, hint);
    return -EINVAL;
}

static int run_parser(struct builder *b, struct span yaml)
{
    yaml_parser_t parser;
    yaml_event_t event;
    bool done = false;
    int rc = 0;

    if (!yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, yaml.n == 0 ? (const uint8_t *)"" : yaml.p, yaml.n);
    while (rc == 0 && !done) {
        if (!yaml_parser_parse(&parser, &event)) {
            rc = fail_syntax(b, &parser);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT;
        rc = on_event(b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return rc;
}

int tree_parse(struct tree *t, struct span yaml, struct report *r)
{
    struct builder b = {.tree = t, .report = r};

    memset(t, 0, sizeof *t);
    /* A value takes a byte at least, so that a small text needs no large range. */
    size_t nodes = yaml.n + NODES_FOR_SETS;
    int rc = pool_init(&t->nodes, "config nodes", sizeof(struct node),
                       nodes < TREE_NODES_MAX ? (uint32_t)nodes : TREE_NODES_MAX);
    if (rc == 0)
        rc = run_parser(&b, yaml);
    if (rc < 0)
        return rc;
    if (b.top == NULL || b.top->kind != NODE_MAP) {
        report_line(r, b.top == NULL ? 0 : b.top->line,
                    "holds no keys; a configuration is lines "
                    "such as `node: a`");
        return -EINVAL;
    }
    t->root = b.top;
    return 0;
}

/* The child that a segment of a path names: a key, or the number of a list's item. */
static struct node *child_of(const struct tree *t, const struct node *at, const char *segment)
{
    uint64_t i;
    if (at->kind == NODE_MAP)
        return tree_get(t, at, segment);
    if (at->kind != NODE_LIST || span_to_u64(span_str(segment), &i) < 0)
        return NULL;
    struct node *n = at->first;
    while (n != NULL && n->ordinal != i)
        n = n->next;
    return n;
}

/* Puts `n` below `parent` in place of `old`, or behind all others when that is NULL. */
static int put_child(struct tree *t, struct node *parent, struct node *old, struct node *n)
{
    if (old == NULL) {
        link_child(parent, n);
    } else {
        struct node **link = &parent->first;
        while (*link != old)
            link = &(*link)->next;
        *link = n;
        n->next = old->next;
        n->parent = parent;
        n->ordinal = old->ordinal;
        if (parent->last == old)
            parent->last = n;
    }
    if (n->name == NULL)
        return 0;
    if (old != NULL)
        (void)table_remove(&t->keys, key_hash(t, parent, n->name), pool_index(&t->nodes, old));
    return add_key(t, n);
}

/* The mapping or list that the last segment of `path` (cut to pieces here) belongs to. */
static struct node *descend(struct builder *b, char *path, char **last)
{
    struct tree *t = b->tree;
    struct node *at = t->root;
    char *dot;

    for (const char *s = path; (s = strchr(s, '.')) != NULL; s++)
        b->depth++;
    if (b->depth >= TREE_DEPTH_MAX)
        return NULL;
    for (; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        *dot = '\0';
        struct node *n = child_of(t, at, path);
        if (n == NULL && at->kind == NODE_MAP) {
            n = pool_get(&t->nodes);
            if (n == NULL)
                return NULL;
            n->kind = NODE_MAP;
            n->name = path;
            if (put_child(t, at, NULL, n) < 0)
                return NULL;
        }
        if (n == NULL)
            return NULL;
        if (n->kind == NODE_NOTHING)
            n->kind = NODE_MAP;
        at = n;
    }
    *last = path;
    return at;
}

int tree_set(struct tree *t, const char *assignment, struct report *r)
{
    struct builder b = {.tree = t, .report = r, .set = assignment};
    const char *equals = strchr(assignment, '=');
    char *last;

    if (equals == NULL || equals == assignment || equals - assignment > KEY_BYTES_MAX)
        return fail(&b, 0, "write key=value, such as smtp.size_max=10M");
    char *path = keep_text(t, span_of(assignment, (size_t)(equals - assignment)));
    struct node *parent = path == NULL ? NULL : descend(&b, path, &last);
    if (parent == NULL || (parent->kind != NODE_MAP && parent->kind != NODE_LIST))
        return fail(&b, 0, "there is no such place in the configuration");
    int rc = run_parser(&b, span_str(equals + 1));
    if (rc == 0 && b.top == NULL) /* nothing after the = is an empty word */
        rc = add_node(&b, NODE_WORD, 0, &b.top);
    if (rc < 0)
        return rc;
    if (b.top->kind == NODE_WORD && b.top->text == NULL)
        b.top->text = "";
    struct node *old = child_of(t, parent, last);
    if (parent->kind == NODE_LIST && old == NULL)
        return fail(&b, 0, "the list has no such item");
    b.top->name = parent->kind == NODE_MAP ? last : NULL;
    return put_child(t, parent, old, b.top);
}

void tree_fini(struct tree *t)
{
    while (t->chunks != NULL) {
        struct tree_chunk *c = t->chunks;
        t->chunks = c->next;
        free(c);
    }
    table_fini(&t->keys);
    if (t->nodes.base != NULL)
        pool_fini(&t->nodes);
    memset(t, 0, sizeof *t);
}
