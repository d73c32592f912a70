"""A cluster of two nodes as its operator finds it: who is there, who owns what, from which ports mail leaves."""
import pytest

from mochila_cluster import Cluster, slice_of, wait_for
from netlab import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def two():
    with Cluster(lanes=4, sink=("--delay", "dot=20-200")) as c:
        yield c


def test_mail_leaves_from_the_slice_of_the_epoch(two):
    """Lanes are at home on a; mail for them comes in on a, leaves from a, with ports of epoch 1."""
    load = two.load(rate=300, nodes=["a"], more=["--count", "1500"])
    load.wait()
    two.drained()
    assert two.judge() == []
    copies = two.sink.copies()
    assert {c[2] for c in copies} == set(two.lanes)
    ports = [c[3] for c in copies]
    assert all(p in slice_of(1) for p in ports)
    assert len(set(ports)) > 10
    the_judge_sees(two)


def the_judge_sees(c):
    """Records with a copy too few, and with one too many, are not good."""
    path = f"{c.sink.stem}.record"
    with open(path) as f:
        lines = f.readlines()
    with open(path, "w") as f:
        f.writelines(lines[1:])
    assert "LOST 1 " in c.judge()[0]
    with open(path, "w") as f:
        f.writelines(lines + lines[:2])
    assert "2 duplicates" in c.judge()[0]


def test_strays_are_handed_over(two):
    """Mail that comes in on b, which owns nothing, is delivered by a, once, and counted on both."""
    two.load(rate=300, nodes=["b"], more=["--count", "1500"]).wait()
    two.drained()
    assert two.judge() == []
    b = two["b"].ledger()
    assert b["accepted"] == b["handed_over"] == 1500
    a = two["a"].ledger()
    assert a["delivered"] == 1500


def test_strays_wait_for_their_owner(two):
    two["a"].kill_all()
    two.load(rate=0, nodes=["b"], more=["--count", "500"]).wait()
    wait_for("the mail to wait at b", lambda: (two["b"].ledger() or {}).get("queued") == 500)
    two["a"].start()
    two.wait_settled()
    two.drained()
    assert two.judge() == []


def test_each_process_may_die(two):
    """Links, netds, workers and masters of both nodes are killed under load: all is there again, none is lost."""
    load = two.load(rate=200)
    for node in two.nodes.values():
        for what in ("link", "netd", "worker", "master", "all"):
            node.kill(what)
            if what in ("master", "all"):
                node.start()
            two.wait_settled()
    load.stop()
    two.drained()
    doubles = two.limits["connections"] * len(two.lanes) * 6  # open at a death of worker or node
    assert two.judge(doubles_most=doubles, resets_most=10000, cuts_most=10000) == []
