/* log - one line, one write(2); see log.h. */
#include "base/log.h"

#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 2048 };

static int log_fd = STDERR_FILENO;
static enum log_level log_level_max = LOG_NOTE;
static const char *log_area = "mochila";

void log_open(int fd, enum log_level level, const char *area)
{
    MUST(fd >= 0);
    MUST(area != NULL);
    log_fd = fd;
    log_level_max = level;
    log_area = area;
}

static void put_head(struct text *t, enum log_level level)
{
    static const char *const words[] = {
        [LOG_ERR] = "error", [LOG_WARN] = "warn", [LOG_NOTE] = "note", [LOG_DBG] = "debug"};
    struct timespec now;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    MUST((size_t)level < ARRAY_COUNT(words));
    text_fmt(t, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %s[%d] ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(now.tv_nsec / 1000000),
             words[level], log_area, (int)getpid());
}

bool log_calm_may(struct log_calm *c, uint64_t now_ms, uint64_t *kept_back)
{
    if (now_ms < c->next_ms) {
        c->kept_back++;
        return false;
    }
    *kept_back = c->kept_back;
    *c = (struct log_calm){.next_ms = now_ms + LOG_CALM_MS};
    return true;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (level > log_level_max)
        return;
    int saved_errno = errno;
    char line[LOG_LINE_BYTES];
    struct text t = text_of(line, sizeof line);
    va_list args;

    put_head(&t, level);
    size_t head = t.n;
    size_t room = sizeof line - head;
    va_start(args, fmt);
    int wanted = vsnprintf(line + head, room, fmt, args);
    va_end(args);
    size_t n = head;
    if (wanted > 0)
        n += (size_t)wanted < room ? (size_t)wanted : room - 1;
    /* What a peer sent may be in here: it must not start a line of its own. */
    for (size_t i = head; i < n; i++) {
        if ((uint8_t)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
    line[n++] = '\n';
    /* A log that cannot be written stops no mail, and there is nowhere to report it to. */
    ssize_t written = write(log_fd, line, n);
    (void)written;
    errno = saved_errno;
}
