"""What operators do to a cluster of three apart from the plain move: orders at the wrong node, holds, drains, reloads."""
import json
import os
import threading
import time

import pytest

from mochila_cluster import Cluster, wait_for
from netlab import why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
POOLS = {"one": ("a", ["10.97.1.1", "10.97.1.2"]), "two": ("a", ["10.97.1.3"]), "far": ("b", ["10.97.1.4"])}


def audit(node):
    return [f"{row['who']}: {row['what']} = {row['result']}" for row in node.api("audit")["rows"]]


def said(node, *parts):
    """A line of the audit log has all of these."""
    return any(all(p in line for p in parts) for line in audit(node))


def reload(node):
    """Also while the workers of the last generation still finish."""
    return wait_for(lambda: f"a reload of {node.name}: {node.cli('reload').stderr}",
                    lambda: node.cli("reload").returncode == 0, 30, 0.5)


def settle_tails(c):
    """No lane is bound by its last move any more."""
    wait_for("the ends of tails", lambda: not any(
        r.get("move") for n in c.names for r in (c[n].status() or {"lanes": [{"move": "?"}]})["lanes"]), 40, 0.1)


def holds(node):
    return {(h["kind"], h["value"]): h["why"] for h in node.api("holds")["holds"]}


def queued(node, lane):
    return (node.lane(lane) or {"queued": None})["queued"]


def test_orders_at_any_node():
    """Each order reaches the node that it is for, is followed from where it was given, and stands in both logs."""
    with Cluster(nodes=("a", "b", "c"), pools=POOLS, sink=("--delay", "dot=20-100")) as c:
        load = c.load(rate=60, nodes=["a", "b"])
        done = c["c"].cli("pool", "move", "one", "--to", "b")  # neither the owner nor the target
        assert done.returncode == 0 and "done" in done.stdout, done.stdout + done.stderr
        assert said(c["c"], "api:", "move pool=one to=b", "node a: taken")
        assert said(c["a"], "node c:", "move pool=one to=b", "taken a-1")
        settle_tails(c)
        done = c["c"].cli("move", "abort", "a-1")
        assert done.returncode != 0 and "over already" in done.stderr
        assert said(c["c"], "move_abort id=a-1", "over already") and said(c["a"], "node c: move_abort", "refused")
        assert json.loads(c["c"].cli("move", "status", "a-1", "--json").stdout)["moves"][0]["state"] == "done"

        done = c["c"].cli("node", "drain", "b")  # ordered elsewhere; two pools, two takers
        assert done.returncode == 0, done.stdout + done.stderr
        c.wait_settled()
        assert c["b"].owned() == set()
        assert c["a"].owned() and c["c"].owned(), "both take lanes"
        assert said(c["c"], "node_drain node=b", "node b: taken") and said(c["b"], "node c: node_drain", "taken b-1")
        settle_tails(c)
        done = c["a"].cli("node", "undrain", "b", timeout=40)  # what comes back comes from a and from c
        assert done.returncode == 0, done.stdout + done.stderr
        c.wait_settled()
        assert c["b"].owned() == {"10.97.1.1", "10.97.1.2", "10.97.1.4"}
        assert said(c["c"], "node b: move lane=") and said(c["a"], "node b: move lane=")
        done = c["a"].cli("node", "undrain", "b")
        assert done.returncode == 0 and "nothing is to be moved" in done.stdout
        load.stop()
        c.drained()
        assert c.judge() == []


def test_a_drain_says_what_stays():
    """Lanes whose last move has open connections are named, the others go; without any node up nothing does."""
    with Cluster(pools=POOLS, sink=("--delay", "dot=4000")) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "40"]).wait()
        assert c["a"].move_pool("one", "b")["state"] == "done"  # its deliveries are open for seconds
        done = c["b"].cli("node", "drain", "b")
        assert done.returncode == 1, done.stdout
        assert "open connections of its last move" in done.stdout, done.stdout
        assert c["b"].owned() == {"10.97.1.1", "10.97.1.2"}, "the pool that can go has gone"
        settle_tails(c)
        assert c["b"].cli("drain").returncode == 0  # it takes no mail any more: nor lanes
        wait_for("a to hear of it", lambda: any(n["health"] == "drained" for n in c["a"].status()["nodes"]), 20)
        for words in (("pool", "move", "two", "--to", "b", "--dry-run"), ("pool", "move", "two", "--to", "b")):
            done = c["a"].cli(*words)
            assert done.returncode == 1 and "about to stop" in done.stderr, done.stdout + done.stderr
        done = c["a"].cli("node", "drain", "a")
        assert done.returncode == 1 and "no other node can take lanes" in done.stderr, done.stdout + done.stderr
        c["b"].kill_all()
        wait_for("b to be down", lambda: not c.sees_all("a"))
        done = c["a"].cli("node", "drain", "a")
        assert done.returncode == 1 and "no other node can take lanes" in done.stderr, done.stdout + done.stderr
        assert c["a"].owned() == {"10.97.1.3", "10.97.1.4"}
        books = c["a"].ask("ledger", "--cluster")
        assert not books["complete"] and not books["balanced"]
        done = c["a"].cli("ledger", "--cluster")
        assert done.returncode == 1 and "no figures from node b" in done.stdout and "accepted by" not in done.stdout
        done = c["a"].cli("hold", "lane", "10.97.1.1")  # b's
        assert done.returncode == 1 and "node b cannot be reached" in done.stderr, done.stderr


def test_holds_go_with_their_lanes():
    """A held lane moves and stays held; the hold is the owner's, wherever it is ordered."""
    with Cluster(pools={"main": ("a", ["10.97.1.1", "10.97.1.2"])}) as c:
        one, two = c.lanes
        assert c["b"].cli("hold", "lane", one, "--why", "grüße, bitte warten").returncode == 0  # asked at the other node
        assert holds(c["a"]) == {("lane", one): "grüße, bitte warten"} and holds(c["b"]) == {}
        assert said(c["b"], "hold kind=lane", "node a: taken") and said(c["a"], "node b: hold kind=lane", "done")
        c.load(rate=0, nodes=["a", "b"], more=["--count", "60"]).wait()
        wait_for("the mail of the other lane", lambda: c["a"].ledger()["delivered"] > 0 and
                 queued(c["a"], two) == 0 and c["b"].ledger()["queued"] == 0)
        kept = wait_for("what is held", lambda: queued(c["a"], one))
        assert c["a"].move_pool("main", "b")["state"] == "done"
        c.wait_settled()
        assert holds(c["b"]) == {("lane", one): "grüße, bitte warten"} and holds(c["a"]) == {}
        time.sleep(1)  # time enough to send it
        assert c["b"].ledger()["queued"] == kept and c["b"].ledger()["delivered"] == 0
        assert {r["reason"] for r in c["b"].api("queue", by="message")["rows"]} == {"held-lane"}
        # Back, with everything held at b: there it becomes a hold of each lane.
        assert c["b"].cli("release", "lane", one).returncode == 0
        assert c["b"].cli("hold", "all", "--why", "night").returncode == 0
        settle_tails(c)
        ident = c["b"].order_when_free("pool", "move", "main", "--to", "a")
        assert c["a"].wait_move(ident)["state"] == "done"
        c.wait_settled()
        assert set(holds(c["a"])) == {("lane", one), ("lane", two)}
        assert holds(c["a"])[("lane", one)] == "all mail is held at b: night"
        for lane in c.lanes:
            assert c["b"].cli("release", "lane", lane).returncode == 0
        assert holds(c["a"]) == {}
        c.drained()
        assert c.judge() == []


def test_a_held_message_is_not_tried_by_the_new_owner():
    with Cluster(lanes=1, sink=("--tempfail", "dot=1"), sections={
            "queue": {"retry_first": "30s", "retry_greylist": "30s", "retry_max": "30s", "retry_jitter_percent": 0}}) as c:
        c.load(rate=0, nodes=["a"], more=["--count", "3"], connections=1).wait()

        def rows(node):
            return {r["id"]: r for r in (node.api("queue", by="message") or {}).get("rows", [])}
        wait_for("an attempt of each", lambda: [r["attempts"] for r in rows(c["a"]).values()] == [1, 1, 1], 20)
        held = min(rows(c["a"]))
        assert c["a"].cli("hold", "message", held, "--why", "evidence").returncode == 0
        assert c["a"].move_pool("main", "b")["state"] == "done"
        wait_for("the hold", lambda: rows(c["b"])[held]["reason"] == "held-message", 10)
        time.sleep(1)
        assert rows(c["b"])[held]["attempts"] == 1 and holds(c["b"]) == {("message", held): "evidence"}
        assert c["b"].cli("release", "message", held).returncode == 0
        wait_for("an attempt", lambda: rows(c["b"])[held]["attempts"] == 2, 20)
        assert c.judge_nodes() == []


def test_reloads_and_new_lanes():
    """Lanes and pools are added to a running cluster; nodes are reloaded at any time of a move; books always balance."""
    with Cluster(pools=POOLS, sink=("--delay", "dot=20-1500")) as c:
        load = c.load(rate=120)
        wrong, polls, stop = [], [], threading.Event()

        def watch():
            while not stop.wait(0.1):
                books = c["a"].api("ledger", cluster=1)
                if books is None or not books["complete"]:
                    continue  # somebody restarts, and it says so
                polls.append(books["sum"]["in_transit"])
                if not books["balanced"] or books["sum"]["balance"] != 0:
                    wrong.append(books)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            added = {**POOLS, "one": ("a", POOLS["one"][1] + ["10.97.1.9"]), "new": ("b", ["10.97.1.10"])}
            c.pools = added
            c.write_config("a")
            reload(c["a"])
            ident, why = c["a"].order("pool", "move", "one", "--to", "b")
            assert ident is None and "lane 10.97.1.9 is not configured on node b" in why, why
            c.write_config("b")
            reload(c["b"])
            # b's former workers still finish, and do not know its new lane.
            ident = wait_for("b to tell its lanes", lambda: c["a"].order("pool", "move", "one", "--to", "b")[0], 10)
            move = c["a"].wait_move(ident)
            assert move["state"] == "done", move
            settle_tails(c)
            for name, at, to in (("b", "b", "a"), ("a", "a", "b")):  # taker and giver are reloaded while it goes on
                ident = c[at].order_when_free("pool", "move", "one", "--to", to)
                reload(c[name])
                reload(c[to])
                assert c[at].wait_move(ident)["state"] == "done"
                c.wait_settled()
                settle_tails(c)
        finally:
            stop.set()
            watcher.join()
        assert wrong == [] and len(polls) > 20
        load.stop()
        c.drained()
        # Nothing is cut or in doubt; idle connections of workers that leave may end without a farewell.
        assert c.judge(resets_most=20) == []


HOOK = """#!/bin/sh
echo "$1 $ACTION $LANE $ADDRESS $EPOCH $FROM $TO $POOL" >>DIR/hook.log
test ! -e DIR/no-$1 || { echo "the router says no"; exit 1; }
case $1 in
    acquire) ip addr replace $ADDRESS/32 dev eth0;;
    release) ip addr del $ADDRESS/32 dev eth0;;
esac
"""


def other_driver(c, driver):
    """Before the start: another cluster.driver on all nodes."""
    for name in c.names:
        with open(f"{c.dir}/{name}/hook", "w") as f:
            f.write(HOOK.replace("DIR", f"{c.dir}/{name}"))
        os.chmod(f"{c.dir}/{name}/hook", 0o700)
        c.write_config(name, lambda t: {**t, "cluster": {
            **t["cluster"], "driver": driver,
            **({"hook": f"{c.dir}/{t['node']}/hook"} if driver == "exec" else {})}})


def hook_calls(c, name):
    with open(f"{c.dir}/{name}/hook.log") as f:
        return [tuple(line.split()) for line in f]


def test_a_program_moves_the_addresses():
    """Driver exec: called with its environment; refuses at prepare; at acquire all waits for it, and says so."""
    with Cluster(lanes=2, start=False) as c:
        other_driver(c, "exec")
        c.start()
        c.load(rate=0, nodes=["a"], more=["--count", "40"]).wait()
        c.drained()
        no = [f"{c.dir}/b/no-{action}" for action in ("prepare", "acquire")]
        open(no[0], "w").close()
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        move = c["a"].wait_move(ident)
        assert move["state"] == "refused" and "hook ended with status 1" in move["reason"], move
        os.rename(no[0], no[1])
        ident, why = c["a"].order("pool", "move", "main", "--to", "b")
        assert ident, why
        for name in "ab":  # both operators see it
            wait_for(f"the reason, seen from {name}", lambda n=name: [
                lane for m in c[n].moves(ident) for lane in m["lanes"] if "hook ended" in lane["reason"]], 20)
        assert "hook ended" in c["b"].lane(c.lanes[0])["why"] and not c["b"].lane(c.lanes[0])["run"]
        os.unlink(no[1])
        assert c["a"].wait_move(ident)["state"] == "done"
        c.wait_settled()
        assert c["b"].lane(c.lanes[0]).get("why", "") == ""
        assert not any(lane["reason"] for n in "ab" for m in c[n].moves(ident) for lane in m["lanes"])
        lane = (c.lanes[0], "2", "a", "b", "main")
        assert any(call[:2] == ("acquire", "acquire") and call[3:] == lane for call in hook_calls(c, "b"))
        assert any(call[0] == "release" and call[3] == c.lanes[0] for call in hook_calls(c, "a"))
        wait_for("the end of the tail at the giver", lambda: any(
            call[0] == "end_tail" and call[3] == c.lanes[0] for call in hook_calls(c, "a")), 20)
        c.lab["r"].ip("neigh", "flush", "dev", "eth0")  # this program announces nothing
        c.load(rate=0, nodes=["a"], more=["--count", "40"]).wait()
        c.drained()
        assert c.judge() == []


def test_addresses_that_need_nobody():
    """Driver none: all hosts may send from the lanes' addresses, mochila touches none."""
    with Cluster(lanes=2, start=False) as c:
        other_driver(c, "none")
        for name in c.names:
            for lane in c.lanes:
                c.lab[name].ip("addr", "add", f"{lane}/32", "dev", "lo")
        for name in c.names:
            c[name].start(wait=False)
        for name in c.names:
            c[name].wait_serves()
        wait_for("both", lambda: all(c.sees_all(n) for n in c.names))
        for at, to in (("a", "b"), ("b", "a")):
            for lane in c.lanes:  # what leads to the host is somebody else's business
                c.lab["r"].ip("route", "replace", f"{lane}/32", "via", c.lab.address(at))
            c.load(rate=0, nodes=["a"], more=["--count", "40"]).wait()
            c.drained()
            settle_tails(c)
            assert c[at].wait_move(c[at].order_when_free("pool", "move", "main", "--to", to))["state"] == "done"
            wait_for("the owner", lambda n=to: c[n].owned() == set(c.lanes) and
                     all(c[n].lane(lane)["run"] for lane in c.lanes))
            assert all(c.lab[n].addresses().get(lane) == "lo" for n in c.names for lane in c.lanes)
        c.drained()
        assert c.judge() == []
