/*
 * number - counts, sizes, durations and true/false of the configuration.
 *
 * Pure; the columns of value.c's table. The smallest and largest value of a key is in its row, in
 * the unit of the field. Binary multiples: 1K = 1024.
 */
#ifndef CONFIG_NUMBER_H
#define CONFIG_NUMBER_H

#include "config/keys.h"

NODISCARD int number_parse_bool(const struct config_key *k, const char *text, void *field);
NODISCARD int number_parse_count(const struct config_key *k, const char *text, void *field);
NODISCARD int number_parse_size(const struct config_key *k, const char *text, void *field);
/* KEY_SECONDS and KEY_MILLISECONDS; 0 needs no unit, everything else does. */
NODISCARD int number_parse_duration(const struct config_key *k, const char *text, void *field);
void number_allow_count(const struct config_key *k, struct text *out);
void number_allow_size(const struct config_key *k, struct text *out);
void number_allow_duration(const struct config_key *k, struct text *out);
void number_format_bool(const struct config_key *k, const void *field, struct text *out);
void number_format_count(const struct config_key *k, const void *field, struct text *out);
void number_format_size(const struct config_key *k, const void *field, struct text *out);
void number_format_duration(const struct config_key *k, const void *field, struct text *out);

#endif
