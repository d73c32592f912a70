"""A message that kills its worker, and a message whose bytes on disk are damaged: parked, reported, and alone."""
import glob
import json
import os
import re
import socket

import pytest

import survive

FAULT = "die-on-rcpt=poison@*"


@pytest.fixture
def make():
    ends = []

    def build(**kw):
        ends.append(survive.Node(**kw))
        return ends[-1]
    build.ends = ends
    yield build
    for end in reversed(ends):
        end.close()


def submit(port, rcpt, body=b"hello\r\n"):
    """One message; the node's id of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        f = s.makefile("rwb")

        def say(line, want):
            f.write(line + b"\r\n")
            f.flush()
            while True:
                reply = f.readline()
                if reply[3:4] != b"-":
                    break
            assert reply.startswith(want), (line, reply)
            return reply.decode()
        assert f.readline().startswith(b"220")
        say(b"EHLO t.test", b"250")
        say(b"MAIL FROM:<a@t.test>", b"250")
        say(b"RCPT TO:<" + rcpt + b">", b"250")
        say(b"DATA", b"354")
        reply = say(b"Subject: x\r\n\r\n" + body + b".", b"250")
        return re.search(r"\b([0-9a-z]{26})\b", reply).group(1)


def events(node, kind):
    out = []
    for path in glob.glob(f"{node.dir}/log/events*.jsonl"):
        with open(path) as f:
            out += [e for e in map(json.loads, f) if e["event"] == kind]
    return out


def test_poison(make):
    """It may kill two workers, not a third; mail beside it flows, also in the same lane."""
    node = make(workers=2, env={"MOCHILA_FAULT": FAULT})
    node.start()
    sink = survive.Sink(node.dir, node.sink_port)
    make.ends.append(sink)
    before = survive.Source(node.dir, node.port, "--count", "300", "--connections", "5", name="before")
    make.ends.append(before)
    assert before.wait()["accepted"] == 300
    survive.drained(node)
    # Held first, or the worker could die at it before the 250 is out.
    assert node.ctl("hold", "all").returncode == 0
    bad = submit(node.port, b"poison@d001.test")
    assert node.ctl("release", "all").returncode == 0
    try:
        survive.wait_for("a death", lambda: "dying at poison@d001.test" in node.log(), 20)
    except AssertionError:
        delivered = node.ledger()["delivered"]
        if delivered == 301:
            pytest.skip("SKIPPED: built without MOCHILA_FAULTS")
        raise
    survive.wait_for("the message to be parked", lambda: f"message {bad} ended a worker twice: parked" in node.log(), 30)
    survive.wait_for("the node to serve", node.serves)
    after = survive.Source(node.dir, node.port, "--count", "300", "--connections", "5", name="after")
    make.ends.append(after)
    assert after.wait()["accepted"] == 300

    def rest():
        l = node.ledger()
        return l if l is not None and l["delivered"] >= 600 else None
    ledger = survive.wait_for("the others to be delivered", rest)
    assert ledger["delivered"] == 600 and ledger["queued"] == 1 and survive.balanced(ledger)
    assert node.log().count("dying at poison@d001.test") == 2
    shown = node.ctl("show", bad)
    assert shown.returncode == 0 and "parked" in shown.stdout and "poison" in shown.stdout, shown
    # It stays parked over an orderly restart and a reload.
    assert node.stop() == 0
    node.start()
    ledger = node.ledger()
    assert ledger["queued"] == 1 and survive.balanced(ledger)
    assert node.log().count("dying at poison@d001.test") == 2
    # The operator may give it up.
    assert node.ctl("delete", bad, "--yes").returncode == 0
    ledger = survive.drained(node)
    assert ledger["deleted"] == 1 and survive.balanced(ledger)
    promised = before.promised() | after.promised()
    assert survive.judge(promised, sink.finish(), 0) == []


def test_damaged_body(make):
    """One byte of one body is turned over on the disk of a stopped node."""
    node = make(workers=2)
    sink = survive.Sink(node.dir, node.sink_port)
    make.ends.append(sink)
    node.start()
    assert node.ctl("hold", "all").returncode == 0
    mail = survive.Source(node.dir, node.port, "--count", "300", "--connections", "5", name="mail")
    make.ends.append(mail)
    assert mail.wait()["accepted"] == 300
    marked = b"a body that will be damaged " * 40
    bad = submit(node.port, b"r@d001.test", marked + b"\r\n")
    # Behind it there is more: damage in the very last commit cannot be told from a commit that a power cut tore.
    more = survive.Source(node.dir, node.port, "--count", "100", "--connections", "5", name="more")
    make.ends.append(more)
    assert more.wait()["accepted"] == 100
    assert node.stop() == 0
    hits = 0
    for path in glob.glob(f"{node.dir}/spool/shard-*/seg-*"):
        with open(path, "r+b") as f:
            at = f.read().find(marked)
            if at < 0:
                continue
            f.seek(at + 100)
            byte = f.read(1)
            f.seek(at + 100)
            f.write(bytes([byte[0] ^ 1]))
            os.fsync(f.fileno())
            hits += 1
    assert hits == 1, "the body is in one segment, once"
    node.start()
    before = node.ledger()
    assert node.ctl("release", "all").returncode == 0

    def others():
        l = node.ledger()
        return l if l is not None and l["delivered"] >= 400 else None
    ledger = survive.wait_for("the others to be delivered", others)
    assert survive.balanced(ledger), ledger
    said = survive.wait_for("a report", lambda: [line for line in node.log().splitlines()
                                                 if "damaged" in line and "error" in line], 20)
    shown = node.ctl("show", bad)
    if before["queued"] == 401:
        # Recovered by its index: found damaged when it was to be sent.
        assert ledger["queued"] == 1 and any(bad in line for line in said), (said, ledger)
        assert shown.returncode == 0 and "parked" in shown.stdout and "damaged" in shown.stdout, shown
    copies = sink.finish()
    assert survive.judge(mail.promised() | more.promised(), copies, 0) == []
    assert not any(rcpt == "r@d001.test" for _, rcpt in copies), "damaged mail was sent"
    assert before["queued"] == 401, f"the message has vanished at recovery: {before}, {said}"
