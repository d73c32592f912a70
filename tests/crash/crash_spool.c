/*
 * crash_spool - a shard's log on a simulated disk, cut or failed at the i-th operation.
 *
 *   crash_spool [--seeds N] [--from S]      one random fault a seed (preset: 10,000 seeds from 1)
 *   crash_spool --every N                   for N seeds: every fault at every operation until a run
 * ends clean crash_spool --early-ack N               the build that acknowledges too early: success
 * = a loss is found within N seeds crash_spool --seed S --fault F --op I   one run again: F = cut |
 * eio | enospc | short | none -v                                      the spool's own log lines on
 * stderr
 */
#include "tests/crash/spool_model.h"
#include "tests/sim/sim_disk.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    STEPS_LONG = 450,
    STEPS_SHORT = 160,
    STEPS_AFTER = 60,
    OPEN_TRIES = 6,
    DRAIN_TURNS = 200,
    OPS_A_STEP_PERCENT = 36,
    FAULTS = 5
};

static const char *const fault_names[FAULTS] = {"eio", "enospc", "short", "cut", "none"};
enum { FAULT_NONE = 4 };
static_assert(SIM_EIO == 0 && SIM_ENOSPC == 1 && SIM_SHORT == 2 && SIM_CUT == 3, "as named");

struct run {
    uint64_t seed;
    unsigned fault; /* index of fault_names */
    uint64_t op;    /* 1, 2, ... */
    bool early_ack;
    uint64_t ops; /* of the first part: a fault beyond was never met */
    char failure[MODEL_FAILURE_BYTES];
};

static struct {
    uint64_t runs, mails, refused, failed, recoveries, records, compactions, indexed, torn;
} totals;

/* Every eighth run is long enough for compaction; the others leave time for more seeds. */
static unsigned steps_of(uint64_t seed)
{
    return seed % 8 == 0 ? STEPS_LONG : STEPS_SHORT;
}

static struct spool_settings random_settings(struct rng *r)
{
    static const uint64_t sizes[] = {64 << 10, 96 << 10, 160 << 10, 512 << 10};
    return (struct spool_settings){
        .segment_bytes = sizes[rng_below(r, ARRAY_COUNT(sizes))],
        .spare_count = (uint32_t)(1 + rng_below(r, 3)),
        .reserve_bytes = 256 << 10,
    };
}

/* Opens until it works: faults during the recovery, and another power cut in it now and then. */
static void reopen(struct model *m, bool cut_again)
{
    int r = 0;
    for (int i = 0; i < OPEN_TRIES; i++) {
        if (cut_again && i < 2)
            sim_disk_fault(SIM_CUT, 1 + rng_below(&m->rng, 6));
        r = model_open(m);
        if (r == 0 && !sim_disk_is_down())
            break;
        sim_disk_crash();
        model_close(m);
    }
    sim_disk_heal();
    if (r < 0) {
        model_fail(m, "the spool does not open: %d", r);
        return;
    }
    totals.recoveries++;
    totals.records += m->records;
    totals.indexed += spool_facts(m->spool)->indexed_segments;
    totals.torn += spool_facts(m->spool)->torn_tail_bytes > 0;
    model_settle(m);
    if (m->failure[0] == '\0')
        model_read_all(m);
}

static void work(struct model *m, unsigned steps)
{
    for (unsigned i = 0; i < steps && m->failure[0] == '\0' && !sim_disk_is_down(); i++)
        model_step(m);
}

/* The power goes; or, sometimes, only the process does: what it had given to the disk is still
 * done. */
static void crash(struct model *m)
{
    struct spool_usage u;
    spool_usage(m->spool, &u);
    totals.compactions += u.copied_messages;
    bool process_only = !sim_disk_is_down() && rng_below(&m->rng, 4) == 0;
    if (process_only)
        sim_disk_run();
    if (!process_only || sim_disk_is_down())
        sim_disk_crash();
    model_close(m);
}

/* A last recovery, then all fates: the log must empty itself. */
static void finish(struct model *m)
{
    for (unsigned i = 0; i < m->count && m->failure[0] == '\0'; i++) {
        if (!m->messages[i].known || m->messages[i].outstanding == 0)
            continue;
        int r = model_outcome(m, RECORD_DONE, i, m->messages[i].outstanding);
        if (r < 0)
            model_fail(m, "the last fate of message %u is refused: %d", i, r);
        if (i % 16 == 0)
            model_drain(m, DRAIN_TURNS);
    }
    struct spool_usage u = {.segments = UINT64_MAX};
    for (unsigned i = 0; i < 1000 && u.segments > 2; i++) { /* segments leave one a turn */
        model_drain(m, DRAIN_TURNS);
        spool_usage(m->spool, &u);
    }
    if (m->failure[0] == '\0' && u.live_bytes != 0)
        model_fail(m, "all is delivered and %llu bytes live", (unsigned long long)u.live_bytes);
    if (m->failure[0] == '\0' && u.segments > 2)
        model_fail(m, "all is delivered and %llu segments are kept",
                   (unsigned long long)u.segments);
}

static void lives(struct model *m, struct run *run)
{
    if (run->fault < FAULT_NONE)
        sim_disk_fault((enum sim_fault)run->fault, run->op);
    if (model_open(m) == 0)
        work(m, steps_of(run->seed));
    run->ops = sim_disk_operations();
    if (m->spool != NULL)
        crash(m);
    else
        sim_disk_crash(); /* the fault met the opening */
    sim_disk_heal();
    for (unsigned i = 0; i < 2 && m->failure[0] == '\0'; i++) {
        reopen(m, i == 0 && rng_below(&m->rng, 3) == 0);
        if (m->failure[0] != '\0')
            return;
        work(m, STEPS_AFTER);
        if (rng_below(&m->rng, 2) == 0)
            model_drain(m, DRAIN_TURNS);
        crash(m);
    }
    if (m->failure[0] == '\0')
        reopen(m, false);
    if (m->failure[0] == '\0')
        finish(m);
}

/* True when the run ended without a contradiction. */
static bool run_once(struct run *run)
{
    struct rng r;
    rng_seed(&r, run->seed);
    struct spool_settings s = random_settings(&r);
    s.defective_ack_early = run->early_ack;
    sim_disk_init(run->seed);
    sim_disk_in_order(run->seed % 2 == 0);
    struct model *m = model_create(run->seed, &s);
    m->eager = run->seed / 2 % 2 == 0;
    m->sticky = run->seed / 16 % 2 == 0;
    lives(m, run);
    memcpy(run->failure, m->failure, sizeof run->failure);
    totals.runs++;
    totals.mails += m->acked;
    totals.refused += m->refused;
    totals.failed += m->failed;
    if (m->spool != NULL)
        sim_disk_crash();
    model_destroy(&m);
    sim_disk_fini();
    return run->failure[0] == '\0';
}

static void print_failure(const struct run *run)
{
    printf("FAIL %s\n     again: crash_spool --seed %llu --fault %s --op %llu\n", run->failure,
           (unsigned long long)run->seed, fault_names[run->fault], (unsigned long long)run->op);
}

static int run_seeds(uint64_t from, uint64_t count)
{
    int bad = 0;
    for (uint64_t seed = from; seed < from + count && bad < 5; seed++) {
        struct rng r;
        rng_seed(&r, ~seed);
        struct run run = {.seed = seed,
                          .fault =
                              rng_below(&r, 2) == 0 ? SIM_CUT : (unsigned)rng_below(&r, FAULTS),
                          .op = 1 + rng_below(&r, steps_of(seed) * OPS_A_STEP_PERCENT / 100)};
        if (!run_once(&run)) {
            print_failure(&run);
            bad++;
        }
    }
    return bad;
}

static int run_every(uint64_t count)
{
    int bad = 0;
    for (uint64_t seed = 1; seed <= count && bad < 5; seed++) {
        for (unsigned fault = 0; fault < FAULT_NONE; fault++) {
            struct run run = {.seed = seed, .fault = fault};
            for (run.op = 1; run.ops >= run.op - 1 && bad < 5; run.op++) {
                if (!run_once(&run)) {
                    print_failure(&run);
                    bad++;
                }
            }
        }
    }
    return bad;
}

/* The deliberately wrong build: it must be found out. */
static int run_early_ack(uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct rng r;
        rng_seed(&r, ~seed);
        struct run run = {.seed = seed,
                          .fault = SIM_CUT,
                          .op = 1 + rng_below(&r, steps_of(seed) * OPS_A_STEP_PERCENT / 100),
                          .early_ack = true};
        if (run_once(&run))
            continue;
        if (strncmp(run.failure, "LOST", 4) != 0 && strncmp(run.failure, "DUPLICATE", 9) != 0)
            continue; /* wrong, but not yet the loss that an early acknowledgement means */
        printf("caught the early acknowledgement at seed %llu: %s\n", (unsigned long long)seed,
               run.failure);
        return 0;
    }
    printf("FAIL: an early acknowledgement was not noticed in %llu seeds\n",
           (unsigned long long)seeds);
    return 1;
}

static int run_again(uint64_t seed, const char *fault, uint64_t op)
{
    struct run run = {.seed = seed, .fault = FAULT_NONE, .op = op};
    for (unsigned i = 0; i < FAULTS; i++) {
        if (strcmp(fault, fault_names[i]) == 0)
            run.fault = i;
    }
    if (run_once(&run))
        return 0;
    print_failure(&run);
    return 1;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 10000, from = 1, op = 1, every = 0, early = 0, seed = 0;
    const char *fault = "none";
    bool verbose = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        uint64_t n = strtoull(value, NULL, 10);
        if (strcmp(argv[i], "-v") == 0)
            verbose = true;
        else if (strcmp(argv[i], "--seeds") == 0)
            seeds = n;
        else if (strcmp(argv[i], "--from") == 0)
            from = n;
        else if (strcmp(argv[i], "--every") == 0)
            every = n;
        else if (strcmp(argv[i], "--early-ack") == 0)
            early = n;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = n;
        else if (strcmp(argv[i], "--op") == 0)
            op = n;
        else if (strcmp(argv[i], "--fault") == 0)
            fault = value;
    }
    log_open(verbose ? 2 : open("/dev/null", O_WRONLY), verbose ? LOG_DBG : LOG_ERR, "spool");
    int bad = seed > 0    ? run_again(seed, fault, op)
              : every > 0 ? run_every(every)
              : early > 0 ? run_early_ack(early)
                          : run_seeds(from, seeds);
    printf("crash_spool: %llu runs, %llu acknowledged, %llu refused, %llu failed, %llu recoveries "
           "(%llu torn) of %llu records, %llu segments by index, %llu copies: %s\n",
           (unsigned long long)totals.runs, (unsigned long long)totals.mails,
           (unsigned long long)totals.refused, (unsigned long long)totals.failed,
           (unsigned long long)totals.recoveries, (unsigned long long)totals.torn,
           (unsigned long long)totals.records, (unsigned long long)totals.indexed,
           (unsigned long long)totals.compactions, bad == 0 ? "ok" : "FAILED");
    return bad == 0 ? 0 : 1;
}
