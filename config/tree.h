/*
 * tree - a YAML text as nodes that know their line and their place.
 *
 * Owner:  the loader; nodes and their texts live until tree_fini.
 * Input:  one YAML document in UTF-8, of words, lists and mappings; libyaml reads it.
 * Never:  anchors, aliases, tags, more than one document, words beyond printable ASCII, keys that
 *         are no words, mappings deeper than TREE_DEPTH_MAX, or more than TREE_NODES_MAX nodes:
 * each is an error with its line. (An alias may be a bomb, and a file with anchors is hard to
 * read.)
 */
#ifndef CONFIG_TREE_H
#define CONFIG_TREE_H

#include "base/pool.h"
#include "base/span.h"
#include "base/table.h"
#include "config/report.h"

enum { TREE_DEPTH_MAX = 12, TREE_NODES_MAX = 1 << 20 };

enum node_kind {
    NODE_WORD,
    NODE_LIST,
    NODE_MAP,
    NODE_NOTHING, /* `key:` and no more */
    NODE_BAD      /* an error was reported here: to be passed over */
};

struct node {
    enum node_kind kind;
    uint32_t line;    /* 0: from an override */
    uint32_t ordinal; /* among its siblings, from 0 */
    uint32_t count;   /* of its children */
    uint32_t record;  /* the loader's: index + 1 of what it made of this node */
    const char *name; /* its key; NULL in a list and at the top */
    const char *text; /* of a word; holds no NUL and no control character */
    struct node *parent, *first, *last, *next;
};

struct tree {
    struct pool nodes;
    struct table keys; /* (mapping, key) -> node index: duplicates and look-ups */
    struct tree_chunk *chunks;
    struct node *root;
};

/*
 * Reads the text. Errors go to the report, and parsing goes on where it can; -EINVAL when there is
 * no tree to go on with, -ENOMEM (not reported). tree_fini is due in every case.
 */
NODISCARD int tree_parse(struct tree *t, struct span yaml, struct report *r);
/* Applies "key.key=value": the value is YAML and replaces what is there. -EINVAL is reported. */
NODISCARD int tree_set(struct tree *t, const char *assignment, struct report *r);
void tree_fini(struct tree *t);

/* The child of a mapping with this key, or NULL; NULL for anything that is no mapping. */
struct node *tree_get(const struct tree *t, const struct node *map, const char *name);
/* Where the node is: "pools.x.lanes[2].address"; "" for the top. */
void node_path(const struct node *n, struct text *out);

#endif
