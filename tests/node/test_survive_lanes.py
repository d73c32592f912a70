"""Lanes leave the configuration with mail queued: it goes out by the lanes that are left, and the books show how."""
import signal

import pytest

import survive

SIZES = "2k:16,10k:3,700k:1"


@pytest.fixture
def queued():
    """A node of two shards with held mail in all four lanes, its sink and its source."""
    node = survive.Node(workers=2, lanes=4)
    ends = [node]
    try:
        sink = survive.Sink(node.dir, node.sink_port)
        ends.append(sink)
        node.start()
        assert node.ctl("hold", "all").returncode == 0
        source = survive.Source(node.dir, node.port, "--count", "600", "--connections", "10", "--size", SIZES)
        ends.append(source)
        assert source.wait()["accepted"] == 600
        yield node, sink, source
    finally:
        for end in reversed(ends):
            end.close()


def lanes_of_shard(node, shard):
    return [lane["address"] for lane in node.ask("status")["lanes"] if lane["shard"] == shard]


def keep(node, lanes):
    """Reloads with these lanes only; returns when the new workers hold the shards."""
    before = node.ask("status")["generation"]
    node.lanes = lanes
    node.write_config()
    node.process.send_signal(signal.SIGHUP)

    def there():
        status = node.ask("status")
        workers = [c for c in (status or {}).get("children", []) if c["name"].startswith("worker")]
        return status and status["generation"] == before + 1 and len(workers) == node.workers and \
            all(c["holds_shards"] for c in workers)
    survive.wait_for("the reload", there, 30)


def settle(node, sink, source, lanes):
    assert node.ctl("release", "all").returncode == 0
    ledger = survive.drained(node, 60)
    assert survive.balanced(ledger), ledger
    assert node.stop() == 0
    copies = sink.finish()
    assert survive.judge(source.promised(), copies, 0) == []
    with open(sink.record_path) as f:
        used = {line.split()[2] for line in f}
    assert used <= set(lanes), f"sent from {used}, configured are {lanes}"
    assert node.unplanned() == []
    return ledger


def test_one_lane_of_two_in_a_shard(queued):
    """Another lane of the same shard takes it: nothing is handed over."""
    node, sink, source = queued
    lanes = lanes_of_shard(node, 0) + lanes_of_shard(node, 1)[:1]
    keep(node, lanes)
    ledger = settle(node, sink, source, lanes)
    assert ledger["handed_over"] == 0 and ledger["accepted"] == 600


def test_all_lanes_of_a_shard(queued):
    """The mail crosses to the other worker, bodies in one piece and in chunks; both books tell of it."""
    node, sink, source = queued
    lanes = lanes_of_shard(node, 0)
    keep(node, lanes)
    ledger = settle(node, sink, source, lanes)
    assert ledger["handed_over"] > 100, ledger
    assert ledger["handed_over"] == ledger["taken_over"], ledger
    assert ledger["accepted"] == 600 + ledger["taken_over"], ledger
    assert ledger["delivered"] == 600, ledger


def test_hand_over_is_cut(queued):
    """Workers are killed while it goes on: what was under way may come twice, nothing else, and nothing is lost."""
    node, sink, source = queued
    lanes = lanes_of_shard(node, 0)
    keep(node, lanes)
    killed = []

    def some():
        l = node.ledger()
        return l is not None and l["handed_over"] > 20
    survive.wait_for("hand-overs", some)
    for pid in node.pids("mochila-worker"):
        import os
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
    survive.wait_for("the node to serve", node.serves, 30)
    assert node.ctl("release", "all").returncode == 0
    ledger = survive.drained(node, 60)
    assert survive.balanced(ledger), ledger
    under_way = 64 + 40  # hand-overs at once, and deliveries
    assert survive.judge(source.promised(), sink.finish(), under_way) == []
    assert node.unplanned(killed) == []
