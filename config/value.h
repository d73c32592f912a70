/*
 * value - single values of the configuration: text in, field out, and back.
 *
 * Pure. Knows the types of keys.h that stand for one word; lists, mappings and names of pools and
 * tenants are the loader's.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "config/keys.h"

/* True for the types that value_parse reads. */
bool value_is_single(enum key_type type);
/* Reads `text` into the field that k describes; -EINVAL (field unchanged) when it is not allowed.
 */
NODISCARD int value_parse(const struct config_key *k, const char *text, void *field);
/* What is allowed, to follow "is not": "a duration from 1s to 5d (a number with s, m, h or d)". */
void value_allowed(const struct config_key *k, struct text *out);
/* The field as it would be written in YAML; value_parse reads it back. */
void value_format(const struct config_key *k, const void *field, struct text *out);

/* A text as YAML scalar, in quotes where it needs them. */
void value_put_word(struct text *out, const char *word);
/* Index of `word` in a NULL-terminated list, or -EINVAL. */
NODISCARD int value_word_index(const char *const *words, const char *word);
/* A host name or domain of RFC 1123 letters, digits and hyphens, without a final dot. */
bool value_domain_ok(struct span s);
/* 1..LIMIT_NAME_BYTES of a-z, 0-9 and -, which is not the first. */
bool value_name_ok(const char *s);
/* An unsigned field of 1, 2, 4 or 8 bytes. */
uint64_t value_load(const void *field, size_t bytes);
void value_store(void *field, size_t bytes, uint64_t v);

#endif
