/*
 * The real machine and room of moves, on simulated nodes: state.db that survives crashes, workers
 * that keep the table of roles, netd with one address on one segment, a link that loses everything
 * when it is cut. Masters, workers and netd die at random and at the numbered steps; operators move
 * and abort at random. What must hold is checked after every event, and at the end.
 *
 * MOVE_SEEDS=N runs N seeds instead of 1,000; MOVE_SEED=S runs one of them and tells every step.
 */
#include "master/move/room.h"
#include "tests/unit/move_support.h"

/* --- lives --- */

static void start_worker(struct node *n)
{
    n->worker.up = true;
    for (unsigned lane = 0; lane < LANES; lane++)
        sim_order_set(n, &n->records[lane]);
}

static void crash_worker(struct node *n)
{
    if (!n->worker.up)
        return;
    tell("%s worker dies", n->name);
    S.crashes++;
    uint32_t life = n->worker.life + 1;
    n->worker = (struct worker){.life = life};
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned i = 0; i < MAILS; i++) {
            struct role *r = &n->roles[lane];
            if (r->mail[i] != M_DOT)
                continue;
            /* In doubt: the remote side may have it. */
            S.delivered[lane][i] += chance(50);
            S.doubts[lane][i]++;
            r->mail[i] = M_QUEUED;
        }
    }
    (void)post(W_WORKER_UP, n->index, 20000 + rng_below(&S.rng, 3000000));
}

static void crash_master(struct node *n)
{
    if (!n->up)
        return;
    tell("%s master dies", n->name);
    S.crashes++;
    crash_worker(n);
    room_fini(&n->room);
    memset(n->asking, 0, sizeof n->asking);
    n->up = false;
    n->life++;
    (void)post(W_MASTER_UP, n->index, 20000 + rng_below(&S.rng, 3000000));
}

/* What netd does for a lane that no move cares for: the master asks for each that is ours. */
static void start_master(struct node *n)
{
    tell("%s master starts", n->name);
    n->up = true;
    assert_int_equal(room_init(&n->room, &sim_ops, n, n->name), 0);
    for (uint32_t i = 0; i < n->row_count; i++) {
        const struct row *row = &n->rows[i];
        struct move *v = room_add(&n->room, &row->move);
        assert_non_null(v);
        v->dirty = false;
        for (uint32_t k = 0; k < row->count; k++) {
            struct lane_move *l = room_add_lane(&n->room, v, &row->lanes[k]);
            assert_non_null(l);
            l->outcome = row->outcomes[k];
            if (l->outcome != MOVE_OPEN)
                l->state = MOVE_OVER;
        }
    }
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct lane_record *r = &n->records[lane];
        r->run = r->role == LANE_OWNER;
        if (r->role == LANE_OWNER)
            n->address[lane] = true;
        else if (r->role != LANE_FROZEN)
            n->address[lane] = false;
    }
    room_resume(&n->room);
    if (!n->worker.up)
        start_worker(n);
}

static void cut(unsigned a, unsigned b)
{
    if (!S.link[a][b])
        return;
    tell("the link %u-%u is cut", a, b);
    S.link[a][b] = S.link[b][a] = false;
    for (uint32_t i = 0; i < S.event_count; i++) {
        struct event *e = &S.events[i];
        if (e->what == W_FRAME &&
            ((e->to == a && e->from == b) || (e->to == b && e->from == a)))
            e->peer_life = UINT32_MAX;
    }
    struct event *e = post(W_LINK_UP, a, rng_below(&S.rng, 5000000));
    e->from = b;
}

/* --- events --- */

static void netd_does(struct node *n, unsigned lane, enum netd_action action)
{
    struct lane_move *l = n->asking[lane];
    enum netd_result result = n->netd_up ? NETD_OK : NETD_RETRY;
    n->asking[lane] = NULL;
    MUST(l != NULL);
    if (S.wild && chance(3))
        result = action == NETD_PREPARE || chance(50) ? NETD_FAILED : NETD_RETRY;
    if (result == NETD_OK && action == NETD_ACQUIRE) {
        n->address[lane] = true;
        tell("%s has the address of lane %u", n->name, lane);
    }
    /* netd may die between the deed and the word. */
    if (action == NETD_RELEASE && (result == NETD_OK || chance(50)))
        n->address[lane] = false;
    room_on_netd(l, result, result == NETD_OK ? "" : "the address is in use");
}

static void happen(const struct event *e)
{
    struct node *n = &S.nodes[e->to];
    switch (e->what) {
    case W_FRAME:
        if (n->up && e->life == n->life && e->peer_life == S.nodes[e->from].life)
            room_on_frame(&n->room, S.nodes[e->from].name, span_of(e->bytes, e->n));
        break;
    case W_ORDER:
        if (n->worker.up && e->worker_life == n->worker.life)
            worker_order(n, e->lane, &e->order);
        break;
    case W_REPORT:
        if (n->up && e->life == n->life && e->worker_life == n->worker.life)
            room_on_lane(&n->room, &e->order);
        break;
    case W_NETD:
        if (n->up && e->life == n->life)
            netd_does(n, e->lane, e->action);
        break;
    case W_MASTER_UP:
        if (!n->up)
            start_master(n);
        break;
    case W_WORKER_UP:
        if (!n->worker.up && n->up) {
            start_worker(n);
            room_on_worker(&n->room, 0);
        }
        break;
    case W_NETD_UP:
        n->netd_up = true;
        break;
    case W_LINK_UP:
        S.link[e->to][e->from] = S.link[e->from][e->to] = true;
        break;
    }
    if (n->up)
        room_turn(&n->room);
}

static void in_master(struct node *n, const struct event *e)
{
    S.in_master = true;
    if (setjmp(S.died) == 0) {
        if (e != NULL)
            happen(e);
        else if (n->up)
            room_turn(&n->room);
    } else {
        crash_master(n);
    }
    S.in_master = false;
}

static void operator_moves(void)
{
    struct node *n = &S.nodes[rng_below(&S.rng, NODES)];
    struct ip lanes[LANES];
    uint32_t count = 0;
    char why[160];
    struct move *v;
    if (!n->up || n->row_count > ROWS - 8)
        return;
    for (unsigned i = 0; i < LANES; i++) {
        if (n->records[i].role == LANE_OWNER && chance(60))
            lanes[count++] = address_of(i);
    }
    struct move_wish w = {.lanes = lanes,
                          .count = count,
                          .parallel = 1 + (uint32_t)rng_below(&S.rng, 2),
                          .id = (uint64_t)(n->index + 1) << 48 | ++n->moves,
                          .pool = "p",
                          .to = S.nodes[rng_below(&S.rng, NODES)].name};
    if (count > 0 && room_start(&n->room, &w, &v, why) == 0)
        tell("%s: operator moves %u lanes to %s (%llu)", n->name, count, w.to,
             (unsigned long long)w.id);
}

static void operator_aborts(void)
{
    struct node *n = &S.nodes[rng_below(&S.rng, NODES)];
    for (uint32_t i = 0; n->up && i < n->room.count; i++) {
        struct move *v = n->room.moves[i];
        if (v->outcome != MOVE_OPEN || v->side != MOVE_GIVER || !chance(30))
            continue;
        tell("%s: operator aborts %llu", n->name, (unsigned long long)v->id);
        room_abort(&n->room, v, "aborted");
    }
}

static void accept_mail(unsigned lane, unsigned i)
{
    /* Anywhere, also at a node that does not own it: a stray. */
    struct node *n = &S.nodes[rng_below(&S.rng, NODES)];
    struct role *r = &n->roles[lane];
    if (!n->worker.up || r->mail[i] != M_NONE || S.delivered[lane][i] != 0)
        return;
    for (unsigned k = 0; k < NODES; k++) {
        if (S.nodes[k].roles[lane].mail[i] != M_NONE)
            return;
    }
    if (r->role == LANE_OWNER || r->role == LANE_AWAY)
        r->mail[i] = M_QUEUED;
}

static void mischief(void)
{
    struct node *n = &S.nodes[rng_below(&S.rng, NODES)];
    unsigned a = (unsigned)rng_below(&S.rng, NODES), b = (a + 1) % NODES;
    if (chance(20))
        accept_mail((unsigned)rng_below(&S.rng, LANES), (unsigned)rng_below(&S.rng, MAILS));
    switch (rng_below(&S.rng, 1500)) {
    case 0:
        crash_master(n);
        break;
    case 1:
        crash_worker(n);
        break;
    case 2:
        cut(a, b);
        break;
    case 3:
        n->netd_up = false;
        (void)post(W_NETD_UP, n->index, 100000);
        break;
    case 4:
        operator_aborts();
        break;
    default: /* nothing */
        break;
    }
    if (chance(1) && chance(40))
        operator_moves();
}

/* --- what must hold --- */

/* The owner tells the packets of other hosts' connections from its own by the slice of their port:
   no older connection may have the slice of the epoch in which it sends. */
static void check_slices(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        uint32_t epoch = 0;
        for (unsigned i = 0; i < NODES; i++) {
            const struct node *n = &S.nodes[i];
            if (n->roles[lane].role == LANE_OWNER && n->worker.up && n->worker.run[lane])
                epoch = n->roles[lane].epoch;
        }
        for (unsigned i = 0; i < NODES * MAILS && epoch != 0; i++) {
            const struct role *r = &S.nodes[i / MAILS].roles[lane];
            uint32_t since = r->since[i % MAILS];
            if (r->mail[i % MAILS] == M_DOT && since != epoch && since % 2 == epoch % 2)
                wrong("lane %u runs with epoch %u while a connection of %u is open", lane, epoch,
                      since);
        }
    }
}

static void check_always(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        unsigned active = 0, addresses = 0, owners = 0;
        for (unsigned i = 0; i < NODES; i++) {
            const struct node *n = &S.nodes[i];
            active += n->roles[lane].role == LANE_OWNER && n->worker.up && n->worker.run[lane];
            addresses += n->address[lane];
            owners += n->records[lane].role == LANE_OWNER || n->records[lane].role == LANE_FROZEN;
            for (unsigned k = 0; k < MAILS; k++) {
                if (S.delivered[lane][k] > 1 + S.doubts[lane][k])
                    wrong("lane %u mail %u was delivered %u times", lane, k,
                          S.delivered[lane][k]);
            }
        }
        if (active > 1)
            wrong("lane %u is active on %u nodes", lane, active);
        if (addresses > 1)
            wrong("%u hosts answer for lane %u", addresses, lane);
        if (owners > 1)
            wrong("lane %u has %u owners", lane, owners);
    }
    check_slices();
}

static bool quiet(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        const struct node *n = &S.nodes[i];
        if (!n->up || !n->worker.up || n->room.active_count > 0)
            return false;
        for (unsigned lane = 0; lane < LANES; lane++) {
            for (unsigned k = 0; k < MAILS; k++) {
                if (n->roles[lane].mail[k] != M_NONE && n->roles[lane].mail[k] != M_END)
                    return false;
            }
        }
    }
    return true;
}

static const char *part_word(const struct node *n, unsigned lane)
{
    const struct lane_move *l = room_lane(&n->room, &n->records[lane].address);
    return l != NULL ? move_state_word(l->state) : "over";
}

static void check_end(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        unsigned running = 0;
        for (unsigned i = 0; i < NODES; i++) {
            const struct node *n = &S.nodes[i];
            running += n->roles[lane].role == LANE_OWNER && n->worker.run[lane] &&
                       n->records[lane].role == LANE_OWNER && n->address[lane];
            if (n->records[lane].move != 0)
                wrong("%s: lane %u still names a move, its part is %s", n->name, lane,
                      part_word(n, lane));
        }
        if (running != 1)
            wrong("at the end lane %u runs on %u nodes", lane, running);
        for (unsigned k = 0; k < MAILS; k++) {
            if (S.delivered[lane][k] == 0)
                wrong("lane %u mail %u was lost", lane, k);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        for (uint32_t k = 0; k < S.nodes[i].room.count; k++) {
            if (S.nodes[i].room.moves[k]->outcome == MOVE_OPEN)
                wrong("%s: a move never ended", S.nodes[i].name);
        }
    }
}

/* Every node hears of owners by STATUS: follows a higher epoch of somebody else. */
static void hear(void)
{
    struct node *n = &S.nodes[rng_below(&S.rng, NODES)], *p = &S.nodes[rng_below(&S.rng, NODES)];
    if (n == p || !n->up || !p->up || !S.link[n->index][p->index])
        return;
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct lane_record *r = &n->records[lane];
        const struct lane_record *t = &p->records[lane];
        if (r->role != LANE_AWAY || t->epoch <= r->epoch || strcmp(t->owner, n->name) == 0)
            continue;
        memcpy(r->owner, t->owner, sizeof r->owner);
        r->epoch = t->epoch;
        sim_order_set(n, r);
    }
}

static void set_up(uint64_t seed)
{
    memset(&S, 0, sizeof S);
    S.seed = seed;
    S.now = 1000000;
    rng_seed(&S.rng, seed);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *n = &S.nodes[i];
        n->index = i;
        n->netd_up = true;
        snprintf(n->name, sizeof n->name, "%c", (char)('a' + i));
        for (unsigned k = 0; k < NODES; k++)
            S.link[i][k] = i != k;
        for (unsigned lane = 0; lane < LANES; lane++) {
            struct lane_record *r = &n->records[lane];
            *r = (struct lane_record){.number = lane + 1,
                                      .epoch = 1,
                                      .role = i == 0 ? LANE_OWNER : LANE_AWAY,
                                      .configured = true,
                                      .address = address_of(lane)};
            snprintf(r->owner, sizeof r->owner, "a");
            snprintf(r->pool, sizeof r->pool, "p");
            n->roles[lane] = (struct role){.role = r->role, .epoch = 1};
            for (unsigned m = 0; i == 0 && m < MAILS - 2; m++)
                n->roles[lane].mail[m] = M_QUEUED;
        }
    }
    for (unsigned i = 0; i < NODES; i++)
        start_master(&S.nodes[i]);
}

/* Mail that nobody had accepted by the end of the wild time is none. */
static void count_unsent(void)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned k = 0; k < MAILS; k++) {
            bool known = S.delivered[lane][k] > 0;
            for (unsigned i = 0; i < NODES; i++)
                known |= S.nodes[i].roles[lane].mail[k] != M_NONE;
            if (!known && k >= MAILS - 2)
                S.delivered[lane][k] = 1;
        }
    }
}

/* The earliest that is due; of several those posted first: sockets keep the order. */
static struct event *next_event(void)
{
    struct event *first = NULL;
    for (uint32_t i = 0; i < S.event_count; i++) {
        struct event *e = &S.events[i];
        if (e->at <= S.now && (first == NULL || e->at < first->at ||
                               (e->at == first->at && e->number < first->number)))
            first = e;
    }
    return first;
}

static void step(void)
{
    struct event *e;
    S.now += 1000;
    for (unsigned i = 0; i < NODES; i++) {
        worker_turn(&S.nodes[i]);
        if (S.nodes[i].up && (S.now / 1000) % 10 == i)
            in_master(&S.nodes[i], NULL);
    }
    while (S.why[0] == '\0' && (e = next_event()) != NULL) {
        struct event now = *e;
        *e = S.events[--S.event_count];
        in_master(&S.nodes[now.to], &now);
        free(now.bytes);
        check_always();
    }
    if (S.wild)
        mischief();
    if ((S.now / 1000) % 50 == 0)
        hear();
    check_always();
}

static bool run_seed(uint64_t seed, bool loud)
{
    set_up(seed);
    S.loud = loud;
    S.wild = true;
    while (S.now < WILD_US && S.why[0] == '\0')
        step();
    S.wild = false;
    count_unsent();
    /* Orders and hearsay under way have a second after it is quiet. */
    for (unsigned still = 0; still < 1000 && S.now < CALM_US && S.why[0] == '\0'; still++) {
        step();
        still = quiet() ? still : 0;
    }
    if (S.why[0] == '\0')
        check_end();
    for (uint32_t i = 0; i < S.event_count; i++)
        free(S.events[i].bytes);
    for (unsigned i = 0; i < NODES; i++) {
        if (S.nodes[i].up)
            room_fini(&S.nodes[i].room);
    }
    if (S.why[0] != '\0')
        printf("seed %llu: %s\n", (unsigned long long)seed, S.why);
    return S.why[0] == '\0';
}

static void seeds(void **state)
{
    (void)state;
    const char *one = getenv("MOVE_SEED"), *many = getenv("MOVE_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : 1000;
    unsigned moved = 0, aborted = 0, crashes = 0, failed = 0;
    log_open(2, LOG_ERR, "sim");
    if (one != NULL) {
        assert_true(run_seed(strtoull(one, NULL, 10), true));
        return;
    }
    for (uint64_t seed = 1; seed <= count && failed < 5; seed++) {
        failed += !run_seed(seed, false);
        moved += S.moved;
        aborted += S.aborted;
        crashes += S.crashes;
    }
    printf("%llu seeds: %u lanes moved, %u did not, %u crashes\n", (unsigned long long)count, moved,
           aborted, crashes);
    assert_int_equal(failed, 0);
    /* A simulation in which nothing moves would find nothing. */
    assert_true(moved >= count);
    assert_true(crashes >= count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
