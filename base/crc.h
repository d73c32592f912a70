/* crc - CRC32C (Castagnoli), hardware where the CPU has it. */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include "base/span.h"

/* crc32c over s, continuing from `crc` (0 to start). */
uint32_t crc32c(uint32_t crc, struct span s);
/* The same without the CPU's help: what the other one is tested against. */
uint32_t crc32c_portable(uint32_t crc, struct span s);

#endif
