/*
 * config - what the operator wrote, checked and with every preset filled in.
 *
 * Owner:  whoever loaded it; read-only afterwards.
 * Input:  the text of mochila.yaml and what `--set` adds to it. Master and workers load the same
 *         text, so they agree: nothing is asked of the host while loading.
 * Never:  half a configuration. Either every key is right, or all errors are told and there is
 * none.
 *
 * One table (config/keys.c) of {key, type, min, max, preset, reloadable, help} is behind the
 * loader, `mochila check`, `mochila show config` and the manual page.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "config/types.h"

struct text;

enum {
    CONFIG_FILE_BYTES_MAX = 8 << 20,
    CONFIG_ERRORS_MAX = 50,
    CONFIG_ERRORS_BYTES = 32 << 10, /* room for that many error lines */
};

/* A text to load. `sets` are "key.key=value" (value: YAML), applied after the text; may be NULL. */
struct config_input {
    const char *yaml;
    size_t n;
    const char *file; /* its name in messages */
    const char *const *sets;
    uint32_t set_count;
};

/*
 * Loads and checks `yaml` (named `file` in messages). On errors returns -EINVAL, *out NULL and one
 * line per error in `errors`:
 * `mochila.yaml:12: pools.x.lanes[2].address: "10.0.0" is not an IPv4 or IPv6 address`.
 * All errors of the file are reported, at most CONFIG_ERRORS_MAX. -ENOMEM is reported there as
 * well.
 */
NODISCARD int config_load(const char *yaml, size_t n, const char *file, struct text *errors,
                          struct config **out);
/* The same with overrides; an error in one of them says `--set` in place of file and line. */
NODISCARD int config_load_with(const struct config_input *in, struct text *errors,
                               struct config **out);
/* Reads the file and loads it; -ENOENT and the like are reported in errors as well. */
NODISCARD int config_load_file(const char *path, struct text *errors, struct config **out);
void config_free(struct config **c);
/*
 * The whole file into *yaml (malloc'ed, for the caller to free): for who keeps the text or adds
 * overrides. -EFBIG above CONFIG_FILE_BYTES_MAX; every failure is a line in errors.
 */
NODISCARD int config_read_file(const char *path, struct text *errors, char **yaml, size_t *n);
/* The embedded default: what `make demo` and `mochilad --demo` run. */
struct span config_default_yaml(void);
/*
 * Every key with its value and where it came from (preset, file:line, --set), as YAML that loads to
 * the same configuration. Errors as config_load_with.
 */
NODISCARD int config_show(const struct config_input *in, struct text *errors, struct text *out);
/*
 * Keys whose values differ and that a reload cannot change, separated by ", ": 0 when there are
 * none and a reload does it all.
 */
uint32_t config_needs_restart(const struct config *running, const struct config *next,
                              struct text *keys);
/*
 * Limits in force for a site: an exact route first, then provider by MX suffix, then the default.
 * route may be NULL; mx_name may be NULL. *provider becomes the provider's name or NULL.
 */
const struct config_limits *config_limits_for(const struct config *c,
                                              const struct config_route *route, const char *mx_name,
                                              const char **provider);
/* The route of a recipient domain in any case: itself, then the longest ".x", then "*"; or NULL. */
const struct config_route *config_route_for(const struct config *c, struct span domain);
/* Index of the tenant whose network holds the client's address, or default_tenant. */
uint16_t config_tenant_for(const struct config *c, const struct ip *client);

#endif
