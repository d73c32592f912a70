"""Mail that comes in at the wrong node: clients of b send through lanes of a, and everything may die meanwhile."""
import os
import signal
import time

import pytest

from delivery import QUICK, FakeMX, send, wait_for
from fake_mx import Delay
from test_cluster import Pair, cluster, pid_of


class Strays(Pair):
    """As a pair, with one pool of two lanes at a, and all mail to one exchanger."""

    def __init__(self, mx):
        self.mx = mx
        super().__init__()

    def make(self, name):
        node = super().make(name)
        node.pools = "pools:\n  main: {home: a, lanes: [{address: 127.0.0.21-127.0.0.22, ehlo: out%d.a.test}]}\n"
        node.routes = [("*", self.mx.address)]
        node.sections["queue"].update(QUICK)  # what was at a dot is tried again in a second
        node.write_config()
        return node

    def ended(self):
        """Nothing is queued anywhere, and no recipient is between two nodes."""
        books = self.a.api("ledger", cluster=1)
        return books["complete"] and books["balanced"] and books["sum"]["queued"] == 0 and \
            books["sum"]["in_transit"] == 0


@pytest.fixture
def strays():
    with FakeMX(lambda c, v, l: Delay(0.01) if v in ("DOT", "LAST") else None) as mx:
        p = Strays(mx)
        yield p
        p.remove()


def recipients(mx):
    return sorted(r for m in mx.accepted for r in m.rcpts)


def send_some(node, count, start=0):
    for i in range(start, start + count):
        send(node, f"u{i:03}@d{i % 7}.test")


def test_handed_over(strays):
    strays.start().wait_up()
    send_some(strays.b, 30)
    strays.mx.wait_messages(30)
    wait_for("the books", strays.ended)
    assert len(set(recipients(strays.mx))) == len(recipients(strays.mx)) == 30
    assert {c.source for c in strays.mx.connections} <= {"127.0.0.21", "127.0.0.22"}
    assert strays.b.ledger()["handed_over"] == 30 and strays.b.ledger()["delivered"] == 0
    assert strays.a.ledger()["delivered"] == 30


def test_owner_is_down(strays):
    strays.start().wait_up()
    strays.a.kill9()
    send_some(strays.b, 10)
    time.sleep(1.5)
    assert strays.b.ledger()["queued"] == 10 and not strays.mx.accepted
    assert strays.b.cli("queue").stdout.count("stray") >= 1
    strays.a.start()
    strays.wait_up()
    strays.mx.wait_messages(10)
    wait_for("the books", strays.ended)
    assert len(recipients(strays.mx)) == 10


def test_kills(strays):
    """Workers of both nodes and links die again and again: nothing is lost; twice comes what was at a dot."""
    strays.start().wait_up()
    for round_ in range(6):
        send_some(strays.b, 15, 15 * round_)
        node = (strays.a, strays.b)[round_ % 2]
        victim = pid_of(node, "link") if round_ % 3 == 2 else node.worker_pids()[round_ // 2 % 2]
        os.kill(victim, signal.SIGKILL)
        wait_for("workers", lambda: all(len(n.worker_pids()) == 2 for n in (strays.a, strays.b)))
        wait_for("listeners", strays.b.all_ready)
    wait_for("the books", strays.ended, 60)
    got = recipients(strays.mx)
    assert len(set(got)) == 90, sorted({f"u{i:03}" for i in range(90)} - {r[:4] for r in got})
    assert len(got) - 90 <= 30, got  # of each connection at most one, when its worker dies
    assert all(n["up"] for n in cluster(strays.a)["nodes"])
