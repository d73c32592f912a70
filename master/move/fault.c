/* fault - see fault.h. */
#include "master/move/fault.h"

#ifdef MOCHILA_FAULTS

#include "base/log.h"
#include "master/master.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct fault {
    unsigned step;
    bool after;
    char side, action[16], file[200];
};

static bool parse(const char *text, struct fault *out)
{
    char sign[2] = "";
    snprintf(out->action, sizeof out->action, "kill-master");
    out->after = true;
    int n = sscanf(text, "%u%1[-]", &out->step, sign);
    out->after = n < 2;
    const char *rest = strchr(text, ':');
    if (n < 1 || rest == NULL || (rest[1] != 'a' && rest[1] != 'b'))
        return false;
    out->side = rest[1];
    if (rest[2] == ':')
        (void)sscanf(rest + 3, "%15[^:]:%199s", out->action, out->file);
    return true;
}

static void end_proc(const struct proc *p)
{
    if (p != NULL && p->pid > 0)
        (void)kill(p->pid, SIGKILL);
}

static void act(struct master *m, const struct lane_move *l, const char *action)
{
    const struct lane_record *r = lane_by_address(m, &l->address);
    if (strcmp(action, "kill-worker") == 0)
        end_proc(master_holder(m, r->shard % m->workers));
    else if (strcmp(action, "kill-link") == 0)
        end_proc(m->link);
    else if (strcmp(action, "kill-netd") == 0)
        end_proc(m->netd);
    else if (strcmp(action, "stop") == 0)
        (void)raise(SIGSTOP);
    else
        (void)raise(SIGKILL);
}

void fault_move(struct master *m, const struct lane_move *l, unsigned step, bool after)
{
    static bool fired;
    struct fault f = {.step = 0};
    const char *text = getenv("MOCHILA_FAULT_MOVE");
    if (fired || text == NULL || !parse(text, &f))
        return;
    if (f.step != step || f.after != after || f.side != (l->side == MOVE_GIVER ? 'a' : 'b'))
        return;
    fired = true;
    if (f.file[0] != '\0') {
        int fd = open(f.file, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0)
            return;
        close(fd);
    }
    log_err("MOCHILA_FAULT_MOVE: %s at step %u%s", f.action, step, after ? "" : "-");
    act(m, l, f.action);
}

#else

/* A translation unit must not be empty (C11 6.9). */
extern const int move_fault_absent;
const int move_fault_absent = 1;

#endif
