"""Two whole nodes on loopback as one cluster: they see each other, and what dies comes back."""
import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import pytest

from mochila_node import BIN, Node, free_port, wait_for

CLI = f"{BIN}/mochila"


def cli(*args):
    return subprocess.run([CLI, *args], check=True, capture_output=True, text=True).stdout


class Pair:
    """Nodes a and b; each has a pool of its own home, which both configure."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="mochila-cluster-", dir="/var/tmp")
        self.ca = f"{self.dir}/ca"
        cli("cluster", "init", "west", "--dir", self.ca)
        self.wire = {n: f"127.0.0.1:{free_port()}" for n in "ab"}
        for n in "ab":
            self.certify(n)
        self.nodes = {n: self.make(n) for n in "ab"}
        self.a, self.b = self.nodes["a"], self.nodes["b"]

    def certify(self, name, ca=None):
        bundle = f"{self.dir}/{name}-{os.path.basename(ca or self.ca)}.pem"
        cli("cluster", "issue", name, "--dir", ca or self.ca, "--out", bundle)
        shutil.rmtree(f"{self.dir}/pki-{name}", ignore_errors=True)
        cli("cluster", "join", bundle, "--dir", f"{self.dir}/pki-{name}")

    def section(self, name, more=""):
        other = "b" if name == "a" else "a"
        pki = f"{self.dir}/pki-{name}"
        return (f'cluster: {{name: west, listen: "{self.wire[name]}", peers: {{{other}: "{self.wire[other]}"}}, '
                f"ca: {pki}/ca.pem, certificate: {pki}/node.pem, key: {pki}/node.key{more}}}")

    def make(self, name):
        pools = ("pools:\n"
                 "  main: {home: a, lanes: [{address: 127.0.0.21-127.0.0.22, ehlo: out%d.a.test}]}\n"
                 "  other: {home: b, lanes: [{address: 127.0.0.23, ehlo: out.b.test}]}\n")
        return Node(name=name, pools=pools, extra=self.section(name), start=False, workers=2)

    def start(self):
        for node in self.nodes.values():
            node.start()
        return self

    def wait_up(self, seconds=30):
        for node in self.nodes.values():
            wait_for(f"{node.name} to see the other", lambda n=node: all(x["up"] for x in cluster(n)["nodes"]), seconds)

    def remove(self):
        for node in self.nodes.values():
            node.stop()
            node.remove()
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def pair():
    p = Pair()
    yield p
    p.remove()


def cluster(node):
    return node.api("cluster")


def peer(node, name):
    return next(n for n in cluster(node)["nodes"] if n["node"] == name)


def pid_of(node, child):
    return next((c["pid"] for c in node.api("status")["children"] if c["name"] == child and c["state"] == "ready"), 0)


def reload(node):
    node.write_config()
    node.cli("reload")


def log(node):
    with open(glob.glob(f"{node.dir}/log/mochila.log")[0]) as f:
        return f.read()


def test_each_sees_the_other(pair):
    pair.start().wait_up()
    for name, node in pair.nodes.items():
        seen = cluster(node)
        assert seen["cluster"] == "west" and seen["node"] == name
        assert [n["node"] for n in seen["nodes"] if n["self"]] == [name]
        assert {n["node"]: n["lanes"] for n in seen["nodes"]} == {"a": 2, "b": 1}
        wait_for("good health", lambda n=node: all(x["health"] == "running" for x in cluster(n)["nodes"]), 3)
        for n in seen["nodes"]:
            assert n["version"] and n["disk_free_bytes"] > 0, n
        lanes = {x["lane"]: x for x in seen["lanes"]}
        assert {k: v["owner"] for k, v in lanes.items()} == {
            "127.0.0.21": "a", "127.0.0.22": "a", "127.0.0.23": "b"}
        for lane in lanes.values():
            ours = lane["owner"] == name
            assert lane["role"] == ("owner" if ours else "away") and lane["run"] and lane["epoch"] == 1, lane


def test_ledger_of_all(pair):
    pair.start().wait_up()
    for node in pair.nodes.values():
        books = node.api("ledger", cluster=1)
        assert books["balanced"] and books["complete"], books
        assert [n["node"] for n in books["nodes"]].count("a") == 1 and len(books["nodes"]) == 2
        assert books["sum"]["in_transit"] == 0
    pair.b.kill9()
    wait_for("b to be down", lambda: not peer(pair.a, "b")["up"])
    books = pair.a.api("ledger", cluster=1)
    assert not books["balanced"] and not books["complete"], books


@pytest.mark.parametrize("child", ["link", "netd"])
def test_kill_of_a_child(pair, child):
    """A link or a netd that is killed comes back; the other node sees the first of it, and only for a moment."""
    pair.start().wait_up()
    for node in (pair.a, pair.b):
        before = pid_of(node, child)
        assert before
        os.kill(before, signal.SIGKILL)
        wait_for(f"another {child}", lambda n=node, p=before: pid_of(n, child) not in (0, p))
        assert all(x["run"] for x in cluster(node)["lanes"] if x["owner"] == node.name)
    pair.wait_up()


def test_kill_of_a_master(pair):
    pair.start().wait_up()
    for node, other in ((pair.a, pair.b), (pair.b, pair.a)):
        node.kill9()
        wait_for("it to be down", lambda: not peer(other, node.name)["up"], 5)
        down = peer(other, node.name)
        assert down["health"] == "down" and down["why"], down
        assert f"node {node.name} is not reached" in log(other)
        node.start()
        pair.wait_up()


def test_wrong_certificate(pair):
    """A node with a certificate of another authority stays outside; mail of both goes on."""
    foreign = f"{pair.dir}/foreign"
    cli("cluster", "init", "west", "--dir", foreign)
    pair.certify("b", foreign)
    pair.start()
    wait_for("a line about it", lambda: "refused" in log(pair.a) + log(pair.b))
    assert not peer(pair.a, "b")["up"] and not peer(pair.b, "a")["up"]
    assert all(x["run"] for x in cluster(pair.b)["lanes"] if x["owner"] == "b")


def test_same_node_id(pair):
    for node in pair.nodes.values():
        node.extra += "\nnode_id: 7"
        node.write_config()
    pair.start()
    wait_for("the refusal", lambda: "it has the node_id of a, 7" in log(pair.a))
    assert peer(pair.a, "b")["health"] == "refused"
    assert log(pair.a).count("it has the node_id") == 1


def rewrite(node, sql):
    """The node's records, as no order of an operator would make them; it must not run."""
    with sqlite3.connect(f"{node.dir}/spool/state.db") as db:
        assert db.execute(sql).rowcount == 1


def test_what_others_say_of_lanes(pair):
    """A younger epoch of a lane that is not ours is believed, and kept; of a lane of ours nothing is."""
    pair.start().wait_up()
    for node in (pair.a, pair.b):
        node.stop()
    rewrite(pair.b, "UPDATE lane SET epoch = 5 WHERE address = '127.0.0.23'")
    rewrite(pair.b, "UPDATE lane SET owner = 'b', role = 1, epoch = 9 WHERE address = '127.0.0.21'")
    pair.start().wait_up()

    def lane(address):
        return next(x for x in cluster(pair.a)["lanes"] if x["lane"] == address)

    wait_for("the younger epoch", lambda: lane("127.0.0.23")["epoch"] == 5)
    assert lane("127.0.0.23")["owner"] == "b" and lane("127.0.0.23")["role"] == "away"
    wait_for("an alarm", lambda: "lane 127.0.0.21 has two owners" in log(pair.a))
    assert lane("127.0.0.21")["owner"] == "a" and lane("127.0.0.21")["epoch"] == 1
    assert log(pair.a).count("has two owners") == 1
    pair.b.stop()
    pair.a.restart()
    assert lane("127.0.0.23")["epoch"] == 5, "it was written down"


def test_reload(pair):
    """Cluster keys change with a reload: leaving the cluster and coming back; the workers' mail is no matter."""
    pair.start().wait_up()
    link = pid_of(pair.a, "link")
    reload(pair.a)
    assert pid_of(pair.a, "link") == link, "nothing has changed for the link"
    pair.a.extra = pair.section("a", ", move_lanes: 3")
    reload(pair.a)
    wait_for("another link", lambda: pid_of(pair.a, "link") not in (0, link))
    pair.wait_up()


def test_no_cluster_no_children():
    with Node() as node:
        assert not any(c["name"] in ("link", "netd") and c["pid"] for c in node.api("status")["children"])
        seen = cluster(node)
        assert seen["cluster"] == "" and [n["node"] for n in seen["nodes"]] == ["test"]
        assert all(x["run"] for x in seen["lanes"])
