"""Reload, drain, stop, restart and a dead master under load: nothing lost, nothing doubled, nobody refused."""
import os
import signal
import threading

import pytest

import survive

LOAD = ("--connections", "30", "--size", "2k:80,10k:18,400k:2", "--give-up", "0", "--timeout", "30s")


class Run:
    """A node with a source and a sink that run until told otherwise."""

    def __init__(self, **kw):
        self.node = survive.Node(**{"workers": 2, **kw})
        self.sink = survive.Sink(self.node.dir, self.node.sink_port, "--delay", "dot=0-10")
        self.source = None
        self.killed = []

    def start(self, rate=400):
        self.node.start()
        self.source = survive.Source(self.node.dir, self.node.port, "--duration", "3600s", "--rate", str(rate), *LOAD)
        self.flows()
        return self

    def flows(self, more=100):
        """Mail is delivered, now."""
        before = self.delivered()
        survive.wait_for("mail to flow", lambda: self.delivered() >= before + more, 30)

    def delivered(self):
        l = self.node.ledger()
        return l["delivered"] if l is not None else 0

    def finish(self, doubles_most=0):
        sent = self.source.stop()
        ledger = survive.drained(self.node)
        assert survive.balanced(ledger), ledger
        assert self.node.stop() == 0
        copies = self.sink.finish()
        promised = self.source.promised()
        assert len(promised) >= 150
        assert survive.judge(promised, copies, doubles_most) == []
        assert self.node.unplanned(self.killed) == []
        return sent

    def close(self):
        for end in (self.source, self.sink, self.node):
            if end is not None:
                end.close()


@pytest.fixture
def run():
    runs = []

    def make(**kw):
        runs.append(Run(**kw))
        return runs[-1]
    yield make
    for r in runs:
        r.close()


def settled(node, generation=None):
    """The workers of one generation serve, and of no other."""
    status = node.ask("status")
    if status is None:
        return None
    workers = [c for c in status["children"] if c["name"].startswith("worker")]
    if len(workers) != node.workers or not all(c["state"] == "ready" and c["holds_shards"] for c in workers):
        return None
    now = status["generation"]
    return now if generation is None or now == generation else None


def reload(node, seconds=30):
    before = survive.wait_for("the node to settle", lambda: settled(node), seconds)
    node.process.send_signal(signal.SIGHUP)
    return survive.wait_for("the reload", lambda: settled(node, before + 1), seconds)


def test_twenty_reloads(run):
    r = run().start()
    for _ in range(20):
        reload(r.node)
    r.flows()
    sent = r.finish()
    assert sent["connect_errors"] == 0, "a client was refused during a reload"
    # 451 is a fair answer when the owner of a lane left just then; silence after the end of data is not.
    assert sent["given_up"] <= sent["answered_4xx"], "a client was cut off after its end of data"


def test_reload_with_other_configuration(run):
    r = run().start()
    r.node.lanes += ["127.0.0.41", "127.0.0.42"]
    r.node.extra["queue"] = {"lifetime": "2d"}
    r.node.write_config()
    reload(r.node)
    r.flows()
    sent = r.finish()
    assert sent["connect_errors"] == 0 and sent["given_up"] <= sent["answered_4xx"], sent
    with open(r.sink.record_path) as f:
        sources = {line.split()[2] for line in f}
    assert {"127.0.0.41", "127.0.0.42"} & sources, f"the new lanes were never used: {sources}"


def test_reload_with_broken_configuration(run):
    r = run().start()
    before = settled(r.node)
    good = r.node.text()
    r.node.write_config(good.replace("workers: 2", "wrokers: 2"))
    said = r.node.ctl("reload")
    assert said.returncode != 0
    assert "wrokers" in said.stdout + said.stderr, said
    r.node.process.send_signal(signal.SIGHUP)
    survive.wait_for("the error in the log", lambda: "wrokers" in r.node.log())
    r.flows()
    assert settled(r.node) == before
    r.node.write_config(good)
    reload(r.node)
    r.flows()
    assert r.finish()["connect_errors"] == 0


def test_stop_and_start_under_load(run):
    """SIGTERM while mail flows, and again, and twice in a row."""
    r = run().start()
    for i in range(4):
        assert r.node.stop() == 0
        r.node.start()
        if i != 1:
            r.flows()
    r.finish()


def test_second_signal_stops_at_once(run):
    """Two SIGTERMs do not wait for anybody; the crash path is the way back."""
    r = run().start()
    open_out = sum(survive.sockets_to(p, r.node.sink_port) for p in r.node.pids("mochila-worker"))
    r.node.process.send_signal(signal.SIGTERM)
    r.node.process.send_signal(signal.SIGTERM)
    r.node.process.wait(15)
    r.killed = [1, 2, 3]
    r.node.start()
    r.flows()
    r.finish(doubles_most=max(open_out, 40))


def test_drain_and_back(run):
    r = run().start()
    assert r.node.ctl("drain").returncode == 0
    survive.wait_for("the workers to leave", lambda: r.node.pids("mochila-worker") == [], 30)
    assert r.node.ctl("reload").returncode == 0
    survive.wait_for("new workers", lambda: settled(r.node), 30)
    r.flows()
    r.finish()


def test_master_killed(run):
    """The workers finish what is in flight and leave by themselves; nothing is doubled, all is recovered."""
    r = run().start()
    for _ in range(3):
        left = r.node.kill_master()
        survive.wait_for("the orphans to leave", lambda p=left: all(survive.state_of(x) in ("", "Z") for x in p), 30)
        r.node.start()
        r.flows()
    r.finish()


def test_worker_frozen(run):
    """SIGSTOP for three seconds: the other worker goes on with its lanes, and nothing is lost or doubled."""
    r = run().start()
    for pid in r.node.pids("mochila-worker"):
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(3, os.kill, (pid, signal.SIGCONT))
        timer.start()
        timer.join()
        r.flows()
    r.finish()
