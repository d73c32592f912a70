/*
 * eml - real messages from a directory of .eml files, as templates.
 *
 * Input:  any file whose name ends in .eml; LF, CR and CRLF line ends become CRLF; an mbox `From `
 *         line and NUL bytes are dropped.
 */
#ifndef BENCH_EML_H
#define BENCH_EML_H

#include "bench/message.h"

/* 0, or -errno; -EINVAL after saying on stderr what is wrong. The array is the caller's. */
NODISCARD int eml_load(const char *dir, struct message_template **out, uint32_t *count);
void eml_template_free(struct message_template *t);
/* One message: normalises and stuffs it. 0 or -ENOMEM. */
NODISCARD int eml_template(struct span raw, struct message_template *out);

#endif
