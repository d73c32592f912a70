/* screen - see screen.h. */
#include "ctl/screen.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { ROWS_MIN = 10, ROWS_PRESET = 24, LINE_BYTES = 4096 };

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static struct sigaction saved[ARRAY_COUNT(signals)];
static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

bool screen_capable(const struct view *v)
{
    const char *term = getenv("TERM");
    return v->width > 0 && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

unsigned screen_rows(void)
{
    struct winsize w;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_row == 0)
        return ROWS_PRESET - 1;
    return (w.ws_row < ROWS_MIN ? ROWS_MIN : w.ws_row) - 1U;
}

void screen_draw(struct screen *s, const char *text)
{
    FILE *out = s->view->out;
    unsigned lines = 0;
    if (s->drawn > 0)
        fprintf(out, "\033[%uA\r", s->drawn);
    while (*text != '\0') {
        char line[LINE_BYTES];
        size_t n = strcspn(text, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)n, text);
        /* The last column stays free: a full line would wrap on some terminals. */
        size_t fits = view_fit(line, s->view->width - 1);
        fprintf(out, "%.*s\033[K\n", (int)fits, line);
        text += n + (text[n] == '\n' ? 1 : 0);
        lines++;
    }
    fputs("\033[J", out);
    (void)fflush(out);
    s->drawn = lines;
}

void screen_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: sleep must wake up */
    stopped = 0;
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        (void)sigaction(signals[i], &action, &saved[i]);
}

void screen_release(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        (void)sigaction(signals[i], &saved[i], NULL);
}

bool screen_stopped(void)
{
    return stopped != 0;
}

void screen_wait(unsigned ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000L};
    if (stopped == 0)
        (void)nanosleep(&pause, NULL);
}
