/*
 * load - from a tree of nodes to struct config, by the table of keys.
 *
 * Owner:  one call of config_load_with or config_show; nothing of it outlives that call but the
 *         struct config, which the caller takes from `c`.
 * Input:  the text, its overrides, the built-in data.
 * Never:  stops at the first error: a bad value is reported and the next key is read.
 *
 * Private to config/.
 */
#ifndef CONFIG_LOAD_H
#define CONFIG_LOAD_H

#include "config/keys.h"
#include "config/tree.h"

/* An array that grows; nodes[i] is what item i was made of (NULL: of no line in the file). */
struct load_list {
    uint8_t *items;
    struct node **nodes;
    uint32_t count, cap;
};

struct loader {
    struct config *c;
    struct tree own, built_in;
    struct tree *tree; /* the one that is read at the moment */
    struct report report;
    struct load_list lists[LIST_COUNT];
    struct table lanes;     /* address -> lane + 1 */
    struct table routes;    /* domain -> route + 1 */
    struct table suffixes;  /* mx_suffix -> provider entry + 1 */
    uint32_t built_in_from; /* index of the first provider entry that is built in */
    bool no_memory;
};

enum load_mode {
    LOAD_PRESETS, /* what is not given gets its preset, or is missed */
    LOAD_OVERLAY  /* what is not given stays as it is */
};

/* Loads and checks; 0, or -EINVAL / -ENOMEM with the errors reported. load_fini in every case. */
NODISCARD int load_run(struct loader *l, const struct config_input *in, struct text *errors);
void load_fini(struct loader *l);

/* Reads a mapping (NULL: an empty one) into `base`, the struct of the scope. */
void load_map(struct loader *l, struct node *map, enum key_scope scope, void *base,
              enum load_mode mode);
/* Reports that a value is not what its key allows. */
void load_bad(struct loader *l, const struct config_key *k, const struct node *at);
/* A copy of `item` at the end of a list; NULL when it is full or memory ran out (reported). */
void *load_add(struct loader *l, enum key_list id, struct node *from, const void *item);
const void *load_item(const struct loader *l, enum key_list id, uint32_t i);
/* Adds to one of the tables above; remembers when memory ran out. */
void load_index(struct loader *l, struct table *t, uint32_t hash, uint32_t value);

/* records.c: one item of a list of records, or one name of a mapping of names. */
void record_read(struct loader *l, enum key_list id, struct node *item);
/* Built-in providers, behind the operator's. */
void record_built_in_providers(struct loader *l);
/* Limits as a route with via has them before its own are laid over them. */
void record_limits_via(struct config_limits *out);
/* Finds an item by its domain or address in the loader's tables; 0 = none, else index + 1. */
uint32_t record_find_lane(const struct loader *l, const struct ip *address);

/* check.c: what one key alone cannot tell, and what is made of other keys. */
void check_all(struct loader *l);
/* lookup.c: the tables behind config_route_for and its like. -ENOMEM. */
NODISCARD int lookup_build(struct config *c);
void lookup_free(struct config_lookup **lookup);

#endif
