#include "bench/message.h"

#include "bench/eml.h"
#include "bench/options.h"
#include "bench/weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct message_plan {
    struct message_template *templates;
    uint32_t template_count;
    struct weights template_order;
    char *domain_text;
    struct span *domains;
    uint32_t domain_count;
    struct weights domain_order;
    size_t bytes_max;
};

enum { LINE_BYTES = 76, DOMAIN_BYTES_MAX = 255 };

static const char message_id_field[] = "Message-ID: <";
static const char message_id_host[] = "@bench.mochila>\r\n";

size_t message_head(char out[MESSAGE_HEAD_BYTES_MAX], const struct message_template *t,
                    struct identity id)
{
    char *p = out;

    memcpy(p, IDENTITY_FIELD ": ", sizeof IDENTITY_FIELD + 1);
    p += sizeof IDENTITY_FIELD + 1;
    identity_write(p, id);
    p += IDENTITY_BYTES;
    memcpy(p, "\r\n", 2);
    p += 2;
    if (t->own_headers)
        return (size_t)(p - out);
    memcpy(p, message_id_field, sizeof message_id_field - 1);
    p += sizeof message_id_field - 1;
    identity_write_key(p, id.run, id.number);
    p += IDENTITY_KEY_BYTES;
    memcpy(p, message_id_host, sizeof message_id_host - 1);
    p += sizeof message_id_host - 1;
    MUST(p <= out + MESSAGE_HEAD_BYTES_MAX);
    return (size_t)(p - out);
}

/* Lines of 76 letters that differ, without a leading dot, up to exactly `bytes` of text. */
static void fill_body(char *p, size_t bytes)
{
    static const char words[] =
        "the pouch was thrown from one horse to the next in two minutes and "
        "the mail never stopped ";
    size_t word = 0;
    size_t left = bytes;

    MUST(bytes >= 2);
    while (left > 0) {
        size_t line = left < LINE_BYTES + 2 + 3 ? left : LINE_BYTES + 2;
        if (line > LINE_BYTES + 2)
            line = left / 2;
        for (size_t i = 0; i + 2 < line; i++)
            p[i] = words[word++ % (sizeof words - 1)];
        p[line - 2] = '\r';
        p[line - 1] = '\n';
        p += line;
        left -= line;
    }
}

static int synthetic(struct message_template *t, uint64_t bytes, const char *from)
{
    char head[MESSAGE_HEAD_BYTES_MAX];
    size_t head_bytes = message_head(head, t, (struct identity){0});
    char *text = malloc(bytes + 1);

    if (text == NULL)
        return -ENOMEM;
    int n = snprintf(text, bytes - head_bytes,
                     "From: Load <%s>\r\nTo: undisclosed-recipients:;\r\n"
                     "Subject: A message of %llu bytes\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
                     "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
                     from, (unsigned long long)bytes);
    if (n < 0 || (size_t)n + head_bytes + 2 > bytes) {
        free(text);
        return -E2BIG;
    }
    size_t rest = bytes - head_bytes;
    fill_body(text + n, rest - (size_t)n);
    t->plain = span_of(text, rest);
    t->wire = t->plain;
    return 0;
}

static int one_size(struct message_plan *p, struct span word, uint32_t weight, const char *from)
{
    char text[24];
    uint64_t bytes;

    snprintf(text, sizeof text, "%.*s", (int)word.n, (const char *)word.p);
    if (options_count(text, 1024, &bytes) < 0 || bytes < MESSAGE_SIZE_MIN || bytes > UINT32_MAX) {
        fprintf(stderr,
                "mochila-bench: --size: \"%s\" is not a size from %d bytes on, as 2k or"
                " 10000 (k = 1024), or a list as 2k:9,100k:1\n",
                text, MESSAGE_SIZE_MIN);
        return -EINVAL;
    }
    struct message_template *t = &p->templates[p->template_count];
    t->weight = weight;
    int rc = synthetic(t, bytes, from);
    if (rc == 0)
        p->template_count++;
    return rc;
}

/* A list `word[:weight],...`; calls back for each word. */
struct word_list {
    struct span text;
    struct span word;
    uint32_t weight;
};

/* 1 and the next word, 0 at the end, -EINVAL. A weight is 1..10000. */
static int next_word(struct word_list *l)
{
    if (l->text.n == 0)
        return 0;
    const uint8_t *comma = memchr(l->text.p, ',', l->text.n);
    size_t n = comma != NULL ? (size_t)(comma - l->text.p) : l->text.n;
    size_t used = comma != NULL ? n + 1 : n;
    const uint8_t *colon = n > 0 ? memchr(l->text.p, ':', n) : NULL;
    uint64_t weight = 1;

    l->word = span_of(l->text.p, colon != NULL ? (size_t)(colon - l->text.p) : n);
    if (colon != NULL) {
        struct span digits = span_of(colon + 1, n - l->word.n - 1);
        if (span_to_u64(digits, &weight) < 0 || weight < 1 || weight > WEIGHT_MAX)
            return -EINVAL;
    }
    l->weight = (uint32_t)weight;
    l->text = span_of(l->text.p + used, l->text.n - used);
    return l->word.n > 0 ? 1 : -EINVAL;
}

static int add_sizes(struct message_plan *p, const struct message_spec *spec)
{
    struct word_list list = {.text = span_str(spec->sizes)};
    size_t commas = 0;
    int rc;

    for (const char *c = spec->sizes; *c != '\0'; c++)
        commas += *c == ',';
    p->templates = calloc(commas + 1, sizeof *p->templates);
    if (p->templates == NULL)
        return -ENOMEM;
    while ((rc = next_word(&list)) > 0) {
        rc = one_size(p, list.word, list.weight, spec->from);
        if (rc < 0)
            return rc;
    }
    if (rc == 0 && p->template_count == 0)
        rc = -EINVAL;
    if (rc < 0)
        fprintf(stderr, "mochila-bench: --size: \"%s\" is no list as 2k:9,100k:1\n", spec->sizes);
    return rc;
}

static int numbered_domains(struct message_plan *p, uint64_t count)
{
    enum { EACH = 24 };

    if (count < 1 || count > MESSAGE_DOMAIN_MAX) {
        fprintf(stderr, "mochila-bench: --domains: a number from 1 to %d\n", MESSAGE_DOMAIN_MAX);
        return -EINVAL;
    }
    p->domains = calloc(count, sizeof *p->domains);
    p->domain_text = calloc(count, EACH);
    if (p->domains == NULL || p->domain_text == NULL)
        return -ENOMEM;
    p->domain_count = (uint32_t)count;
    for (uint32_t i = 0; i < p->domain_count; i++) {
        char *text = p->domain_text + (size_t)i * EACH;
        int n = snprintf(text, EACH, "d%03u.test", i);
        p->domains[i] = span_of(text, (size_t)n);
    }
    return weights_init_equal(&p->domain_order, p->domain_count);
}

static int named_domains(struct message_plan *p, const char *text)
{
    size_t cap = 1;
    for (const char *c = text; *c != '\0'; c++)
        cap += *c == ',';
    uint32_t *weights = calloc(cap, sizeof *weights);
    int rc = -ENOMEM;

    p->domain_text = strdup(text);
    p->domains = calloc(cap, sizeof *p->domains);
    if (weights == NULL || p->domain_text == NULL || p->domains == NULL)
        goto out;
    struct word_list list = {.text = span_str(p->domain_text)};
    while ((rc = next_word(&list)) > 0) {
        if (list.word.n > DOMAIN_BYTES_MAX) {
            rc = -EINVAL;
            break;
        }
        weights[p->domain_count] = list.weight;
        p->domains[p->domain_count++] = list.word;
    }
    if (rc < 0 || p->domain_count == 0) {
        fprintf(stderr,
                "mochila-bench: --domains: \"%s\" is neither a number nor a list as"
                " a.test:3,b.test:1\n",
                text);
        rc = -EINVAL;
        goto out;
    }
    rc = weights_init(&p->domain_order, weights, p->domain_count);
out:
    free(weights);
    return rc;
}

static int order_templates(struct message_plan *p)
{
    uint32_t *weights = calloc(p->template_count, sizeof *weights);

    if (weights == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->template_count; i++) {
        weights[i] = p->templates[i].weight;
        size_t bytes = MESSAGE_HEAD_BYTES_MAX + p->templates[i].wire.n;
        p->bytes_max = bytes > p->bytes_max ? bytes : p->bytes_max;
    }
    int rc = weights_init(&p->template_order, weights, p->template_count);
    free(weights);
    return rc;
}

static int build(struct message_plan *p, const struct message_spec *spec)
{
    int rc = spec->eml_dir != NULL ? eml_load(spec->eml_dir, &p->templates, &p->template_count)
                                   : add_sizes(p, spec);

    if (rc == 0)
        rc = order_templates(p);
    if (rc < 0)
        return rc;
    return spec->domains != NULL ? named_domains(p, spec->domains)
                                 : numbered_domains(p, spec->domain_count);
}

int message_plan_create(const struct message_spec *spec, struct message_plan **out)
{
    struct message_plan *p = calloc(1, sizeof *p);

    if (p == NULL)
        return -ENOMEM;
    int rc = build(p, spec);
    if (rc < 0) {
        if (rc != -EINVAL)
            fprintf(stderr, "mochila-bench: messages: %s\n", strerror(-rc));
        message_plan_destroy(&p);
        return rc;
    }
    *out = p;
    return 0;
}

void message_plan_destroy(struct message_plan **plan)
{
    struct message_plan *p = *plan;

    if (p == NULL)
        return;
    for (uint32_t i = 0; i < p->template_count; i++)
        eml_template_free(&p->templates[i]);
    free(p->templates);
    free(p->domains);
    free(p->domain_text);
    weights_fini(&p->template_order);
    weights_fini(&p->domain_order);
    free(p);
    *plan = NULL;
}

const struct message_template *message_plan_template(const struct message_plan *p, uint64_t number)
{
    return &p->templates[weights_pick(&p->template_order, number)];
}

struct span message_plan_domain(const struct message_plan *p, uint64_t number)
{
    return p->domains[weights_pick(&p->domain_order, number)];
}

size_t message_plan_bytes_max(const struct message_plan *p)
{
    return p->bytes_max;
}
