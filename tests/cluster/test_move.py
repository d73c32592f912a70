"""Lanes move between nodes under load, and the world sees nothing of it: nothing lost, nothing doubled, no
connection reset or cut. Here the planned ones, and what operators do to them; deaths in test_move_kill.py."""
import os
import threading
import time

import pytest

from mochila_cluster import OVER, Cluster, slice_of, wait_for
from netlab import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
MOVES = int(os.environ.get("MOVES", "4"))  # 20 for the figures


def other(name):
    return "b" if name == "a" else "a"


def test_a_pool_there_and_back_under_load():
    """500 messages a second come in at both nodes and go to a sink that answers after 0.3-5 s."""
    with Cluster(lanes=16, slow=True) as c:
        load = c.load(rate=500)
        time.sleep(4)
        at = "a"
        for _ in range(MOVES):
            move = c[at].wait_move(c[at].order_when_free("pool", "move", "main", "--to", other(at)))
            assert move["state"] == "done", move
            assert move["lanes_done"] == move["lanes_total"] == 16
            at = other(at)
            c.wait_settled()
            assert c[at].owned() == set(c.lanes)
        load.stop()
        c.drained()
        assert c.judge() == []
        assert {c.epoch(lane) for lane in c.lanes} == {1 + MOVES}
        for epoch in (1, 2):  # each owner sent, each from its own ports
            assert any(copy[3] in slice_of(epoch) for copy in c.sink.copies())
        for lane in c.lanes:
            assert c.lab.holders(lane) == [at]


def test_open_transactions_finish_on_the_old_owner():
    """The sink holds the dot of all connections for 6 s: the move does not wait for them, and cuts none."""
    with Cluster(lanes=2, sink=("--delay", "dot=6000"), limits={"connections": 20}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "200"]).wait()
        wait_for("open transactions", lambda: len(open_now(c)) >= 30, 20)
        begin = time.monotonic()
        move = c["a"].wait_move(c["a"].order_when_free("pool", "move", "main", "--to", "b"))
        assert move["state"] == "done" and move["tails"] >= 30
        wait_for("connections of the new owner", lambda: any(p in slice_of(2) for p in open_now(c)), 3)
        assert time.monotonic() - begin < 5, "the move waited for the sink"
        c.drained(90)
        assert c.judge() == []


def open_now(c):
    """Source ports of the lanes' connections at the sink, from the router's other side."""
    shown = c.lab.world.run("sh", "-c", "cat /proc/net/tcp").stdout.splitlines()[1:]
    rows = [line.split() for line in shown]
    return [int(r[2].split(":")[1], 16) for r in rows if r[1].endswith(":09DE") and r[3] == "01"]


def test_one_lane():
    with Cluster(lanes=4, sink=("--delay", "dot=50-300")) as c:
        load = c.load(rate=200)
        time.sleep(1)
        lane = c.lanes[1]
        ident, why = c["b"].order("lane", "move", lane, "--to", "b")  # asked at the other node
        assert ident, why
        assert c["a"].wait_move(ident)["state"] == "done"
        c.wait_settled()
        assert c["b"].owned() == {lane}
        load.stop()
        c.drained()
        assert c.judge() == []


def test_a_dry_run_changes_nothing():
    with Cluster(lanes=2, sink=("--delay", "dot=2000"), limits={"connections": 1}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "200", "--size", "20k"]).wait()

        def predicted():
            """The queue, as it will be copied: messages and bytes are known within ten seconds."""
            move = c["a"].ask("pool", "move", "main", "--to", "b", "--dry-run", "--rate", "1M")["move"]
            good = move["messages_total"] > 150 and move["bytes_total"] > 150 * 20000 and move["eta_s"] >= 3
            return move if good else None
        assert wait_for("a prediction", predicted)["bytes_total"] < 6_000_000
        done = c["a"].cli("pool", "move", "main", "--to", "b", "--dry-run")
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(1)
        assert c["a"].owned() == set(c.lanes)
        assert not [m for m in c["a"].moves() if m["state"] not in OVER]


@pytest.mark.parametrize("words, why", [
    (("pool", "move", "main", "--to", "nobody"), "nobody"),
    (("pool", "move", "nothing", "--to", "b"), "nothing"),
    (("lane", "move", "10.97.200.1", "--to", "b"), "10.97.200.1"),
    (("pool", "move", "main", "--to", "a"), "a"),
    (("pool", "move", "main", "--to", "c"), "c"),  # configured, but not there
])
def test_refusals_name_their_reason(words, why):
    with Cluster(nodes=("a", "b", "c"), lanes=2, start=False) as c:
        for name in "ab":
            c[name].start(wait=False)
        for name in "ab":
            c[name].wait_serves()
        wait_for("two nodes", lambda: c["a"].status() and
                 sum(n["up"] for n in c["a"].status()["nodes"]) == 2)
        ident, said = c["a"].order(*words)
        if ident is not None:
            move = c["a"].wait_move(ident, 30)
            assert move["state"] in ("refused", "failed"), move
            said = move["reason"] + " ".join(lane["reason"] for lane in move["lanes"])
        assert why in said, said
        assert len(said) > 10
        assert c["a"].owned() == set(c.lanes)


def test_two_operators():
    """The same pool to different nodes at the same time: one wins, the other is told who."""
    with Cluster(nodes=("a", "b", "c"), lanes=8, sink=("--delay", "dot=50-300")) as c:
        load = c.load(rate=200)
        answers = {}

        def ask(name):
            answers[name] = c[name].order("pool", "move", "main", "--to", name)
        threads = [threading.Thread(target=ask, args=(n,)) for n in ("b", "c")]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        moves = {n: c[n].wait_move(ident) for n, (ident, _) in answers.items() if ident is not None}
        done = [n for n, m in moves.items() if m["state"] == "done"]
        assert len(done) == 1, (answers, moves)
        c.wait_settled()
        assert c[done[0]].owned() == set(c.lanes)
        load.stop()
        c.drained()
        assert c.judge() == []


def test_drain_and_undrain():
    pools = {"one": ("a", ["10.97.1.1", "10.97.1.2"]), "two": ("a", ["10.97.1.3"]), "far": ("b", ["10.97.1.4"])}
    with Cluster(pools=pools, sink=("--delay", "dot=50-300")) as c:
        load = c.load(rate=200)
        home = c["a"].owned()
        assert len(home) == 3
        assert c["a"].cli("node", "drain", "a", "--detach").returncode == 0
        wait_for("a to own nothing", lambda: c["a"].status() and not c["a"].owned(), 60)
        c.wait_settled()
        assert c["b"].owned() == set(c.lanes)
        wait_for("the way back to be taken",
                 lambda: c["a"].cli("node", "undrain", "a", "--detach").returncode == 0 and
                 wait_owned(c, "a", home), 60, 1)
        c.wait_settled()
        load.stop()
        c.drained()
        assert c.judge() == []


def wait_owned(c, name, lanes):
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if c[name].owned() == lanes:
            return True
        time.sleep(0.2)
    return False


def test_a_pool_of_several_owners():
    """One order, at a node that owns nothing of it, brings all lanes of the pool there."""
    with Cluster(nodes=("a", "b", "c"), lanes=4, sink=("--delay", "dot=50-300")) as c:
        load = c.load(rate=100)
        for lane in c.lanes[:2]:
            ident, why = c["a"].order("lane", "move", lane, "--to", "b")
            assert ident, why
            assert c["a"].wait_move(ident)["state"] == "done"
        c.wait_settled()
        wait_for("the tails to end", lambda: all(lane["state"] == "done" for name in "ab" for m in c[name].moves()
                                                 for n in [m["id"]] for lane in c[name].moves(n)[0]["lanes"]), 20)
        c["c"].order_when_free("pool", "move", "main", "--to", "c")
        wait_for("all lanes to be there", lambda: c["c"].owned() == set(c.lanes), 40)
        c.wait_settled()
        load.stop()
        c.drained()
        assert c.judge() == []


def test_throttles_and_attempts_move_along():
    """A message that failed twice at a has had two attempts at b too, and is not tried before its time."""
    with Cluster(lanes=1, sink=("--tempfail", "dot=1"),
                 sections={"queue": {"retry_first": "8s", "retry_greylist": "8s", "retry_max": "8s",
                                     "retry_jitter_percent": 0}}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "5"], connections=1)

        def rows(node):
            return (node.api("queue", by="message") or {}).get("rows", [])
        wait_for("an attempt of each", lambda: len([r for r in rows(c["a"]) if r["attempts"] == 1]) == 5, 20)
        before = {r["id"]: (r["attempts"], time.time() + r["due_in_s"]) for r in rows(c["a"])}
        assert c["a"].move_pool("main", "b")["state"] == "done"
        after = {r["id"]: (r["attempts"], time.time() + r["due_in_s"]) for r in rows(c["b"])}
        assert set(after) == set(before)
        for ident, (attempts, due) in after.items():
            assert attempts >= before[ident][0]
            assert attempts > 1 or due == pytest.approx(before[ident][1], abs=1.5)
        assert rows(c["a"]) == []


def test_six():
    """Lanes with IPv6 addresses, and neighbour advertisements instead of ARP."""
    from netlab import WORLD6, lane_address6
    lanes = [lane_address6(i) for i in (1, 2)]

    def six(c, name, t):
        hosts = {n: f"[{c.lab.address6(n)}]:7525" for n in c.names}
        cluster = {**t["cluster"], "listen": hosts[name], "source": c.lab.address6(name),
                   "peers": {n: hosts[n] for n in c.names if n != name}}
        return {**t, "cluster": cluster, "routes": [{"domain": "*", "via": f"[{WORLD6}]:2526", "limits": c.limits}]}
    with Cluster(pools={"main": ("a", lanes)}, sink=("--listen", f"[{WORLD6}]:2526", "--delay", "dot=500-3000"),
                 start=False) as c:
        for name in c.names:
            c.write_config(name, lambda t, name=name: six(c, name, t))
        c.start()
        load = c.load(rate=200)
        time.sleep(3)
        for at in ("a", "b"):
            move = c[at].wait_move(c[at].order_when_free("pool", "move", "main", "--to", other(at)))
            assert move["state"] == "done" and move["tails"] > 10, move
            c.wait_settled()
        load.stop()
        c.drained()
        assert c.judge() == []
        assert {copy[2] for copy in c.sink.copies()} == set(lanes)


def test_six_between_hosts_of_four():
    """Nodes that know each other by IPv4 addresses could not forward packets of IPv6 connections: refused."""
    from netlab import lane_address6
    with Cluster(pools={"main": ("a", [lane_address6(1)])}) as c:
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        if ident is not None:
            move = c["a"].wait_move(ident)
            assert move["state"] == "refused", move
            why = move["reason"] + move["lanes"][0]["reason"]
        assert "IPv6" in why, why
        assert c["a"].owned() == set(c.lanes)
