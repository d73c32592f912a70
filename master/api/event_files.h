/*
 * event_files - the event files of a log directory, newest first.
 *
 * A file is events-*.jsonl or a rotated, uncompressed one (events-*.jsonl.1).
 */
#ifndef API_EVENT_FILES_H
#define API_EVENT_FILES_H

#include "base/span.h"

enum { EVENT_FILES_MAX = 256, EVENT_PATH_BYTES = 512 };

struct event_file {
    char path[EVENT_PATH_BYTES];
    uint64_t inode;
    int64_t changed_ns;
    off_t bytes;
};
struct event_files {
    unsigned count;
    bool cut;                /* there were more; those left out are not the newest by name */
    struct event_file *file; /* malloc'd */
};

/* 0 or -errno. */
NODISCARD int event_files_list(const char *dir, struct event_files *out);
void event_files_free(struct event_files *f);
/* Exposed for its test. */
bool event_file_name_ok(const char *name);
/* pread that goes on after short reads: bytes read (less only at the end of file) or -errno. */
NODISCARD ssize_t event_file_read(int fd, uint8_t *out, size_t n, off_t from);

#endif
