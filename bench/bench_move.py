#!/usr/bin/python3
"""Measures moves of lanes against their bars, each figure in a run of its own, and prints one table.

    bench/bench_move.py BIN_DIR [OUT] [NAME...]     NAME: planned pause million lanes256 precopy share

Hosts are network namespaces on this machine (see tests/cluster/netlab.py): nodes, destination and load share
its cores. Pauses are the nodes' own figures, by lane: from the last start of an attempt at the giver to the
taker's word that it may start; beside them what the destination saw.
"""
import os
import platform
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
sys.dont_write_bytecode = True
FAST = {"connections": 8, "messages_per_s": 100}  # of a lane: busy, and far from the machine's limits
ROOMY = {"queue": {"entries_max": 4000000}, "spool_options": {"segment": "64M", "reserve": "64M", "spares": 2}}


def other(name):
    return "b" if name == "a" else "a"


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def ms(us):
    return f"{us / 1000:.1f} ms"


def moved(c, at, seconds=600, *more):
    """One move of the pool; the move as it ended."""
    ident = c[at].order_when_free("pool", "move", "main", "--to", other(at), *more, seconds=60)
    move = c[at].wait_move(ident, seconds)
    assert move["state"] == "done", move
    c.wait_settled()
    return move


def pauses(moves):
    return [lane["pause_us"] for m in moves for lane in m["lanes"]]


def gaps(c):
    """For each change of the slice of a lane: from the last message that the old one's side sent, or connection
    that it opened, to the first connection from the new one's; as the destination saw it. In us."""
    out = []
    events = [(ns, address, port >= 40000, "open") for word, address, port, ns, _ in c.sink.connections()
              if word == "open"]
    by_lane = {}
    for ns, address, odd, _ in sorted(events):
        by_lane.setdefault(address, []).append((ns, odd))
    for rows in by_lane.values():
        out += [(b[0] - a[0]) / 1000 for a, b in zip(rows, rows[1:]) if a[1] != b[1]]
    return out


def fill(c, count, size, connections=32):
    """A queue of so many messages at a, none of which is tried yet."""
    assert c["a"].cli("hold", "all").returncode == 0
    c.load(rate=0, nodes=["a"], connections=connections, more=["--count", str(count), "--size", size]).wait(3600)
    assert c["a"].ledger()["queued"] == count


# --- the runs: each gives [(measure, bar, aim, measured, good)] ---

def planned(cluster):
    count = int(os.environ.get("MOVES", "20"))
    with cluster(lanes=16, sink=("--delay", "dot=300-5000")) as c:
        load = c.load(rate=500)
        time.sleep(5)
        at = "a"
        for _ in range(count):
            moved(c, at)
            at = other(at)
        load.stop()
        c.drained(180)
        wrong = c.judge()
        result, promised = c.sink.finish(), len(c.promised())
        lost = promised - result["unique"]
        doubled = result["duplicated"]
        broken = result["connections_reset"] + result["cut_in_transaction"]
        if wrong:
            print("planned:", *wrong, sep="\n  ", file=sys.stderr)
        return [(f"lost / doubled, {count} moves, {promised} messages", "0 / 0", "0 / 0", f"{lost} / {doubled}",
                 not wrong and lost == 0 and doubled == 0),
                ("connections reset or cut at the destination", "0", "0",
                 f"{broken} of {result['sessions']}", broken == 0)]


def pause(cluster):
    with cluster(lanes=16, sink=("--delay", "dot=2-20"), limits=FAST) as c:
        load = c.load(rate=1600, connections=60)
        time.sleep(3)
        at, moves = "a", []
        for _ in range(10):
            moves.append(moved(c, at))
            at = other(at)
        load.stop()
        c.drained()
        wrong = c.judge()
        assert not wrong, wrong
        all_of = pauses(moves)
        p99 = percentile(all_of, 0.99)
        return [("pause of a lane, small queue, p99", "50 ms", "10 ms",
                 f"{ms(p99)} (p50 {ms(percentile(all_of, 0.5))}, max {ms(max(all_of))}; {len(all_of)} pauses)",
                 p99 <= 50000)]


def million(cluster):
    count = int(os.environ.get("QUEUED", "1000000"))
    with cluster(lanes=4, sink=("--delay", "dot=2-20"), limits={"connections": 8, "messages_per_s": 200},
                 sections=ROOMY) as c:
        fill(c, count, "2k")
        assert c["a"].cli("release", "all").returncode == 0
        time.sleep(2)
        begin = time.monotonic()
        move = moved(c, "a", 1800)
        took = time.monotonic() - begin
        all_of = pauses([move])
        p99 = percentile(all_of, 0.99)
        return [(f"the same with {count} queued 2 KB messages, p99", "100 ms", "20 ms",
                 f"{ms(p99)} (max {ms(max(all_of))}; the whole move {took:.0f} s)", p99 <= 100000)]


def lanes256(cluster):
    with cluster(lanes=256, sink=("--delay", "dot=2-20"), limits={"connections": 2}) as c:
        load = c.load(rate=500)
        time.sleep(3)
        ident = c["a"].order_when_free("pool", "move", "main", "--to", "b")
        first = last = None
        end = time.monotonic() + 120
        while last is None and time.monotonic() < end:
            now = time.monotonic()
            for m in c["a"].moves(ident):
                if first is None and (m["lanes_done"] > 0 or any(x["step"] >= 4 for x in m["lanes"])):
                    first = now
                if m["lanes_done"] == m["lanes_total"] or m["state"] == "done":
                    last = now
            time.sleep(0.005)
        assert last is not None and first is not None, c["a"].moves(ident)
        c["a"].wait_move(ident)
        c.wait_settled()
        load.stop()
        c.drained()
        wrong = c.judge()
        assert not wrong, wrong
        return [("256 lanes, first freeze to all lanes over", "2 s", "300 ms", f"{last - first:.2f} s",
                 last - first <= 2)]


def precopy(cluster):
    count = int(os.environ.get("COPIED", "100000"))
    with cluster(lanes=4, sections={**ROOMY, "cluster": {"move_rate": 0}}) as c:
        fill(c, count, "10k")
        ident = c["a"].order_when_free("pool", "move", "main", "--to", "b")
        samples = []
        while True:
            m = next(iter(c["a"].moves(ident)), None)
            if m is not None:
                samples.append((time.monotonic(), m["bytes_sent"]))
                if m["state"] in ("done", "failed", "aborted", "refused"):
                    break
            time.sleep(0.02)
        assert m["state"] == "done", m
        going = [s for s in samples if 0.02 * m["bytes_sent"] < s[1] < 0.95 * m["bytes_sent"]]
        if len(going) < 2:
            going = samples
        rate = (going[-1][1] - going[0][1]) / (going[-1][0] - going[0][0]) / 1e6
        return [(f"precopy of {count} messages of 10 KB", "100 MB/s", "250 MB/s", f"{rate:.0f} MB/s", rate >= 100)]


def share(cluster):
    """Deliveries a second before and during the copy of a queue, as fast as the machine goes."""
    count = int(os.environ.get("QUEUED_SHARE", "500000"))
    with cluster(lanes=4, limits={"connections": 20}, sections=ROOMY) as c:
        fill(c, count, "2k")
        # A second pool of mail that is delivered meanwhile would be another queue; it is the same one here.
        assert c["a"].cli("release", "all").returncode == 0

        def delivered():
            return c["a"].ledger()["delivered"], time.monotonic()
        time.sleep(1)
        one = delivered()
        time.sleep(5)
        two = delivered()
        ident = c["a"].order_when_free("pool", "move", "main", "--to", "b")
        copying = []
        while True:
            m = next(iter(c["a"].moves(ident)), None)
            if m is not None and m["state"] == "copying" and m["lanes_done"] == 0:
                copying.append(delivered())
            if m is not None and m["state"] in ("done", "failed", "aborted", "refused"):
                break
            time.sleep(0.1)
        assert m["state"] == "done", m
        assert len(copying) > 3, "the copy was over too soon to be measured"
        normal = (two[0] - one[0]) / (two[1] - one[1])
        during = (copying[-1][0] - copying[0][0]) / (copying[-1][1] - copying[0][1])
        return [("delivery during precopy, default cap", "70 %", "90 %",
                 f"{100 * during / normal:.0f} % ({during:.0f} of {normal:.0f}/s)", during >= 0.7 * normal)]


RUNS = {"planned": planned, "pause": pause, "million": million, "lanes256": lanes256, "precopy": precopy,
        "share": share}


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True,
                            text=True).stdout.strip()
    return (f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, commit {commit or '?'}, "
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; both nodes, the load and the destination "
            "share the machine")


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: bench_move.py BIN_DIR [OUT] [NAME...]")
    os.environ["MOCHILA_BIN"] = os.path.abspath(sys.argv[1])
    out = sys.argv[2] if len(sys.argv) > 2 else f"{ROOT}/bench/results/{time.strftime('%Y%m%d-%H%M')}-move.md"
    names = sys.argv[3:] or list(RUNS)
    from netlab import why_not
    reason = why_not()
    if reason:
        sys.exit(f"bench-move: {reason}")
    from mochila_cluster import Cluster
    lines = ["# Moves of lanes", "", machine(), "", "| measure | bar | aim | measured | |", "|---|---|---|---|---|"]
    good = True
    for name in names:
        print(f"bench-move: {name} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            rows = RUNS[name](Cluster)
        except (AssertionError, KeyError, TypeError) as e:
            rows = [(name, "", "", f"not measured: {str(e)[:300]}".replace("|", "/"), False)]
        for measure, bar, aim, measured, met in rows:
            good = good and met
            lines.append(f"| {measure} | {bar} | {aim} | {measured} | {'met' if met else 'NOT MET'} |")
            print(lines[-1], flush=True)
        print(f"bench-move: {name} took {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    with open(out, "w") as f:
        f.write("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines) + f"\n\nwritten to {out}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
