"""Moves in a poor world: a thin wire, a full disk, a stranger who has the lane's address."""
import time

import pytest

from mochila_cluster import Cluster, wait_for
from netlab import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
BACKLOG = {"connections": 2}


def test_ten_megabits():
    """8 MB of queue over a wire of 10 Mbit/s, and new mail all the time; the wire's control goes on."""
    with Cluster(lanes=4, sink=("--delay", "dot=400"), limits=BACKLOG) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "400", "--size", "20k"]).wait()
        c.lab.slow("b")
        load = c.load(rate=5)
        begin = time.monotonic()
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        assert ident, why
        move = c["a"].wait_move(ident, 120)
        assert move["state"] == "done", move
        assert time.monotonic() - begin > 2, "the wire was not thin"
        assert move["pause_us"]["max"] < 2_000_000, move["pause_us"]
        load.stop()
        c.lab.slow("b", None)
        c.drained(180)
        assert c.judge() == []


def test_a_rate():
    with Cluster(lanes=4, sink=("--delay", "dot=1000"), limits=BACKLOG) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "300", "--size", "20k"]).wait()
        begin = time.monotonic()
        assert c["a"].move_pool("main", "b", "--rate", "1M")["state"] == "done"
        assert time.monotonic() - begin > 3, "6 MB at 1 MB/s"
        c.drained(180)
        assert c.judge() == []


def test_no_room_at_the_target():
    """What does not fit is refused or given up with a reason, and stays where it is."""
    with Cluster(lanes=2, sink=("--delay", "dot=1000"), limits=BACKLOG, disks={"b": "96M"},
                 sections={"spool_options": {"segment": "8M", "reserve": "8M", "spares": 1}}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "900", "--size", "200k"]).wait()
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        if ident is not None:
            move = c["a"].wait_move(ident, 120)
            assert move["state"] in ("refused", "failed", "aborted"), move
            why = move["reason"] + " ".join(lane["reason"] for lane in move["lanes"])
        assert "room" in why or "disk" in why or "space" in why, why
        c.wait_settled()
        assert c["a"].owned() == set(c.lanes)
        first = c["a"].ledger()["delivered"]
        wait_for("deliveries to go on", lambda: c["a"].ledger()["delivered"] > first + 4)
        assert c.judge_nodes() == []


def test_a_stranger_has_the_address():
    """A lane whose address another host of the segment answers for is not moved."""
    with Cluster(lanes=2) as c:
        c.lab.take_address(c.lanes[0])
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        if ident is not None:
            move = c["a"].wait_move(ident, 60)
            stuck = next(lane for lane in move["lanes"] if lane["lane"] == c.lanes[0])
            why = move["reason"] + stuck["reason"]
            assert move["state"] != "done"
        assert "in use" in why, why
        assert c.lanes[0] in c["a"].owned()


def test_the_giver_does_not_come_back():
    """Its open connections are waited for no longer than cluster.tail_timeout; then the lanes are free again."""
    with Cluster(lanes=2, sink=("--delay", "dot=15000"), limits={"connections": 20},
                 sections={"cluster": {"tail_timeout": "4s"}}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "30"]).wait()
        wait_for("attempts", lambda: (c["a"].ledger() or {}).get("queued") == 30)
        time.sleep(1)
        ident = c["a"].order("pool", "move", "main", "--to", "b")[0]
        assert c["a"].wait_move(ident)["tails"] > 10
        c["a"].kill_all()

        def parts(name):
            return {lane["state"] for m in c[name].moves(ident) for lane in m["lanes"]}
        assert parts("b") == {"running"}, "forwarding was over at once"
        wait_for("the lanes' parts to end", lambda: parts("b") == {"done"}, 20)
        assert "has not come back" in c["b"].log_text()
        c["a"].start(wait=False)
        c["a"].wait_serves()
        c.wait_settled()
        wait_for("a to know that it is over", lambda: parts("a") == {"done"}, 20)
        move = c["b"].wait_move(c["b"].order_when_free("pool", "move", "main", "--to", "a"))
        assert move["state"] == "done", move
        c.drained(90)
        assert c.judge(doubles_most=60, resets_most=60, cuts_most=60) == []
