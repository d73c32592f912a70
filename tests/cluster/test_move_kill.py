"""Deaths and cuts at each numbered step of a move. After each: nothing lost, doubles only from what was in
doubt, one owner for each lane, ledgers that balance, and a cluster that moves on.

The steps are those of the fault points in the master (test builds only): MOCHILA_FAULT_MOVE=STEP:SIDE:ACTION,
where side a gives and side b takes. What kills or stops does it once, right after the step is durable.
MOVE_ALL=1 (make soak) runs every kind of trouble at every step; without it the kinds take turns, so that each step
sees one of them and each kind two steps.
"""
import contextlib
import os
import time

import pytest

from mochila_cluster import OVER, Cluster, wait_for
from netlab import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
ALL = bool(os.environ.get("MOVE_ALL"))
# Where the fault points are.
PLACES = [(1, "a"), (2, "b"), (2, "a"), (3, "a"), (4, "a"), (5, "b"), (6, "a"), (7, "a"), (8, "b"), (8, "a"), (9, "a"),
          (10, "a"), (11, "a")]
if ALL:  # also right before the effect
    PLACES += [(f"{step}-", "a") for step in (4, 6, 7, 8)]
KINDS = ("kill-master", "kill-worker", "abort", "kill-link", "cut", "kill-netd")


def places(kind):
    """Where this kind of trouble happens."""
    return [place for i, place in enumerate(PLACES) if ALL or KINDS[i % len(KINDS)] == kind]


LANES, CONNECTIONS = 4, 25


def small(**kw):
    return Cluster(lanes=LANES, sink=("--delay", "dot=100-800"), limits={"connections": CONNECTIONS}, **kw)


def finish(c, deaths):
    """All that must be so when the dust has settled. deaths: of workers; each may double what it had open."""
    for node in c.nodes.values():
        node.restart_if_ended()
    for node in c.nodes.values():
        node.wait_serves()
    c.wait_settled(90)
    c.drained()
    open_most = deaths * LANES * CONNECTIONS
    wrong = c.judge(doubles_most=open_most, resets_most=open_most, cuts_most=open_most)
    assert wrong == []


@contextlib.contextmanager
def stopped_at(step, side):
    """A small cluster under load whose move to b has stopped the master of `side` at the step; with the load and the
    order, which still runs."""
    with small(start=False) as c:
        for name in "ab":
            env = {"MOCHILA_FAULT_MOVE": f"{step}:{side}:stop"} if name == side else {}
            c[name].start(wait=False, **env)
        for name in "ab":
            c[name].wait_serves()
        c.wait_settled()
        load = c.load(rate=100)
        time.sleep(1)
        order = c["a"].cli_start("pool", "move", "main", "--to", "b", "--detach")
        wait_for(f"step {step} to stop {side}", c[side].stopped, 30)
        yield c, load, order


def moves_on(c):
    """The move has ended, one way or another, and the pool can be moved again from where it is."""
    begun = []

    def over():
        begun[:] = [m for node in c.nodes.values() for m in node.moves() if m["state"] not in OVER]
        return not begun
    wait_for(lambda: f"the end of the move: {begun}", over, 90, 0.2)
    c.wait_settled(60)
    at = c.owner(c.lanes[0])
    to = "b" if at == "a" else "a"
    for _ in range(5):  # a lane whose last move is not quite over stays behind, with that reason
        ident = c[at].order_when_free("pool", "move", "main", "--to", to, seconds=60)
        move = c[at].wait_move(ident)
        if move["state"] == "done":
            break
        assert "not over" in move["reason"] or "of its last move" in move["reason"], move
        time.sleep(1)
    assert move["state"] == "done", move


@pytest.mark.parametrize("step, side", places("kill-master"))
def test_a_master_dies(step, side):
    with small(start=False) as c:
        for name in "ab":
            env = {"MOCHILA_FAULT_MOVE": f"{step}:{side}:kill-master"} if name == side else {}
            c[name].start(wait=False, **env)
        for name in "ab":
            c[name].wait_serves()
        c.wait_settled()
        load = c.load(rate=100)
        time.sleep(1)
        order = c["a"].cli_start("pool", "move", "main", "--to", "b", "--detach")
        wait_for(f"step {step} to kill the master of {side}", c[side].ended, 30)
        order.wait(60)
        time.sleep(0.5)
        c[side].restart_if_ended()
        c[side].wait_serves()
        c.wait_settled(90)
        moves_on(c)
        load.stop()
        finish(c, deaths=1)  # its workers finish by themselves, but a reload of them may cost their last dots


@pytest.mark.parametrize("step, side, action", [
    (step, side, action) for action in ("kill-worker", "kill-link", "kill-netd") for step, side in places(action)])
def test_a_child_dies(step, side, action):
    with small(start=False) as c:
        for name in "ab":
            env = {"MOCHILA_FAULT_MOVE": f"{step}:{side}:{action}"} if name == side else {}
            c[name].start(wait=False, **env)
        for name in "ab":
            c[name].wait_serves()
        c.wait_settled()
        what = action[5:]
        before = set(c[side].pids(what))
        load = c.load(rate=100)
        time.sleep(1)
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        assert ident, why
        wait_for(f"step {step} to kill the {what} of {side}",
                 lambda: not before & set(c[side].pids(what)), 30)
        move = c["a"].wait_move(ident, 120)
        assert move["state"] in ("done", "aborted", "failed"), move
        c.wait_settled(90)
        moves_on(c)
        load.stop()
        finish(c, deaths=1 if what == "worker" else 0)


@pytest.mark.parametrize("step, side", PLACES if ALL else [(7, "a")])
def test_both_nodes_die_at_once(step, side):
    with stopped_at(step, side) as (c, load, order):
        for name in "ab":
            c[name].kill_all()
        order.wait(60)
        for name in "ba":
            c[name].start(wait=False)
        finish_load(c, load, deaths=4)


def finish_load(c, load, deaths):
    for node in c.nodes.values():
        node.wait_serves()
    c.wait_settled(90)
    moves_on(c)
    load.stop()
    finish(c, deaths)


@pytest.mark.parametrize("step, side", places("cut"))
def test_the_wire_is_cut(step, side):
    """At the step the cable is pulled, for five seconds; a stopped master makes room for it."""
    with stopped_at(step, side) as (c, load, order):
        c.lab.cut("a")
        c[side].go_on()
        time.sleep(5)
        c.lab.heal("a")
        order.wait(60)
        finish_load(c, load, deaths=0)


@pytest.mark.parametrize("step, side", places("abort"))
def test_an_abort(step, side):
    """The order to stop comes while the step is being taken: the move ends, with one owner."""
    with stopped_at(step, side) as (c, load, order):
        if side == "b":  # the giver still answers
            assert [c["a"].cli("move", "abort", m["id"]).returncode for m in c["a"].moves()], "no move is shown"
        c[side].go_on()
        order.wait(60)
        for m in wait_for("the move to be shown", lambda: c["a"].moves()):
            c["a"].cli("move", "abort", m["id"])  # again, or too late
        for m in c["a"].moves():
            assert c["a"].wait_move(m["id"])["state"] in ("aborted", "done")
        finish_load(c, load, deaths=0)
