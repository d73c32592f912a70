/* stats_json - the counters pages as one JSON object, see pages.h. */
#include "master/api/fields.h"
#include "master/api/pages.h"

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)

static json_int_t as_int(uint64_t v)
{
    return v > INT64_MAX ? INT64_MAX : (json_int_t)v;
}

/* Counters and gauges of one page; also adds them to total[]. */
static json_t *page_values(const struct stats_page *page, uint64_t *total)
{
    size_t count;
    const struct stats_field *fields = stats_fields(&count);
    json_t *o = json_object();
    for (size_t i = 0; i < count; i++) {
        uint64_t v = stats_field_read(page, &fields[i]);
        total[i] += v;
        if (json_object_set_new(o, fields[i].name, json_integer(as_int(v))) < 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *total_values(const uint64_t *total)
{
    size_t count;
    const struct stats_field *fields = stats_fields(&count);
    json_t *o = json_object();
    for (size_t i = 0; i < count; i++)
        (void)json_object_set_new(o, fields[i].name, json_integer(as_int(total[i])));
    return o;
}

static int add_lanes(json_t *lanes, const struct pages *p, unsigned w)
{
    for (unsigned i = 0; i < LIMIT_LANES; i++) {
        const struct stats_lane *l = &p->page[w]->lanes[i];
        uint32_t number = LOAD(l->lane);
        char address[IP_TEXT];
        if (number == 0)
            continue;
        pages_lane_text(p, number, address);
        json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "lane", address,
                              "number", (int)number, "worker", (int)w, "state", (int)LOAD(l->state),
                              "delivered", as_int(LOAD(l->delivered)), "deferred",
                              as_int(LOAD(l->deferred)), "bounced", as_int(LOAD(l->bounced)),
                              "attempts", as_int(LOAD(l->attempts)), "queued",
                              as_int(LOAD(l->queued)), "open_out", as_int(LOAD(l->open_out)));
        if (json_array_append_new(lanes, o) < 0)
            return -1;
    }
    return 0;
}

static json_t *histogram(const struct pages *p)
{
    json_t *buckets = json_array();
    for (unsigned i = 0; i < ARRAY_COUNT(p->page[0]->accept_us); i++) {
        uint64_t sum = 0;
        for (unsigned w = 0; w < p->count; w++)
            sum += LOAD(p->page[w]->accept_us[i]);
        (void)json_array_append_new(buckets, json_integer(as_int(sum)));
    }
    return buckets;
}

static json_t *worker(const struct stats_page *page, unsigned w, uint64_t now_ns, json_t *values)
{
    uint64_t beat = LOAD(page->heartbeat_ns);
    uint64_t age_ms = now_ns > beat && beat > 0 ? (now_ns - beat) / 1000000 : 0;
    return json_pack("{s:i, s:I, s:I, s:I, s:o}", "slot", (int)w, "pid", as_int(LOAD(page->pid)),
                     "generation", as_int(LOAD(page->generation)), "heartbeat_age_ms",
                     as_int(age_ms), "values", values);
}

json_t *pages_stats(const struct pages *p, uint64_t now_ns)
{
    size_t count;
    uint64_t total[STATS_FIELDS_MAX] = {0};
    json_t *workers = json_array();
    json_t *lanes = json_array();
    bool failed = false;

    (void)stats_fields(&count);
    MUST(count <= ARRAY_COUNT(total));
    for (unsigned w = 0; w < p->count; w++) {
        json_t *values = page_values(p->page[w], total);
        failed = failed || values == NULL || add_lanes(lanes, p, w) < 0 ||
                 json_array_append_new(workers, worker(p->page[w], w, now_ns, values)) < 0;
    }
    json_t *root = NULL;
    if (!failed)
        root = json_pack("{s:s, s:I, s:O, s:o, s:O, s:o}", "node", p->node, "now_ms",
                         as_int(now_ns / 1000000), "workers", workers, "total", total_values(total),
                         "lanes", lanes, "accept_us", histogram(p));
    json_decref(workers);
    json_decref(lanes);
    return root;
}
