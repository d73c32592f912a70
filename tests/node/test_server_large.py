"""Large messages: in pieces through the log, to lanes of this worker and of another, byte for byte."""
import hashlib
import random
import threading
import time

import pytest

from fake_mx import ALL_OFFERS, FakeMX
from mochila_node import Node, wait_for
from talk import Talker

MIB = 1 << 20
LANES = tuple(f"127.0.0.{n}" for n in range(11, 15))


@pytest.fixture(scope="module", params=["DATA", "BDAT"], ids=["out by DATA", "out by BDAT"])
def mx(request):
    offers = [x for x in ALL_OFFERS if x != "CHUNKING" or request.param == "BDAT"]
    with FakeMX(offers=offers) as sink:
        sink.by = request.param
        yield sink


@pytest.fixture(scope="module")
def node(mx):
    with Node(workers=2, lanes=LANES, routes=[("*", mx.address)],
              listeners=[{"bare": "reject"}, {"bare": "normalise"}],
              spool_options={"segment": "64M"}) as one:
        yield one


def text(octets, seed, dots=False):
    """Lines of any length, some with dots, octets of 8 bits; the same for the same seed."""
    r = random.Random(seed)
    out = bytearray(b"Subject: large\r\n\r\n")
    alphabet = bytes(range(1, 10)) + bytes(range(14, 256))
    while len(out) < octets:
        line = r.choices(alphabet, k=64) * r.choice((0, 1, 3, 12, 15))
        if dots and r.random() < 0.5:
            line[:0] = b"." * r.randint(1, 3)
        elif line and line[0] == ord("."):
            line[0] = ord(",")
        out += bytes(line) + b"\r\n"
    return bytes(out)


def stuffed(content):
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def lane_owners(node):
    return {lane["address"]: lane["worker"] for lane in node.api("status")["lanes"]}




def submit(node, content, rcpt, way, listener=0):
    with Talker(node.addresses[listener], timeout=60) as talk:
        talk.ehlo()
        talk.envelope(rcpts=[rcpt])
        if way == "DATA":
            reply = talk.data(stuffed(content))
        else:
            step = {"BDAT": len(content), "BDAT by 100000": 100000, "BDAT by 1 MiB": MIB}[way]
            reply = talk.bdat(*[content[i:i + step] for i in range(0, len(content), step)])
        assert reply.code == 250, reply


def digest(octets):
    return hashlib.sha256(octets).hexdigest()


@pytest.mark.parametrize("dots", [False, True], ids=["no dots", "dots"])
@pytest.mark.parametrize("listener", [0, 1], ids=["reject", "normalise"])
@pytest.mark.parametrize("way", ["DATA", "BDAT", "BDAT by 100000"])
def test_one_mebibyte(node, mx, way, listener, dots):
    """To several domains, so that lanes of both workers take part, whoever accepted."""
    content = text(MIB, 1, dots)
    rcpts = [f"{way.split()[-1]}{listener}{dots}@d{i}.test".lower() for i in range(6)]
    for rcpt in rcpts:
        submit(node, content, rcpt, way, listener)
    lanes = set()
    for rcpt in rcpts:
        message = mx.wait_of(rcpt)
        assert digest(message.split()[1]) == digest(content)
        lanes.add(message.connection.source)
        if mx.by == "BDAT" and not dots:
            assert message.by == "BDAT" and sum(message.chunks) == len(message.wire)
    owners = lane_owners(node)
    assert {owners[lane] for lane in lanes} == {0, 1}, "both workers sent some of it"


@pytest.mark.parametrize("way", ["DATA", "BDAT by 1 MiB"])
def test_twenty_mebibytes(node, mx, way):
    content = text(20 * MIB, 2, dots=way == "DATA")
    rcpts = [f"huge@h{i}.test" for i in range(3)] if way == "DATA" else [f"huge@i{i}.test" for i in range(3)]
    for rcpt in rcpts:
        submit(node, content, rcpt, way)
    for rcpt in rcpts:
        message = mx.wait_of(rcpt, seconds=60)
        assert digest(message.split()[1]) == digest(content)


@pytest.mark.parametrize("octets", [256 * 1024 + d for d in (-1500, -200, -9, -8, -7, -1, 0, 1, 7, 8, 9, 300)]
                         + [32 * 1024 + d for d in (-1, 0, 1)])
def test_around_the_size_of_a_piece(node, mx, octets):
    """The body just below, at and above where it goes to the log in pieces, or is received directly."""
    content = text(octets, 3)
    content = content[:octets - 2].rstrip(b"\r\n")
    content += b"x" * (octets - 2 - len(content)) + b"\r\n"
    assert len(content) == octets
    for way in ("DATA", "BDAT"):
        rcpt = f"piece{octets}{way.lower()}@p{octets % 7}.test"
        submit(node, content, rcpt, way)
        assert digest(mx.wait_of(rcpt).split()[1]) == digest(content)


def test_one_message_to_both_workers(node, mx):
    """One transaction whose recipients are on lanes of both workers: the body goes to each owner."""
    content = text(MIB, 4)
    rcpts = [f"both@b{i}.test" for i in range(12)]
    with Talker(node.address, timeout=60) as talk:
        talk.ehlo()
        talk.envelope(rcpts=rcpts)
        assert talk.data(content).code == 250
    sources = set()
    for rcpt in rcpts:
        message = mx.wait_of(rcpt)
        assert digest(message.split()[1]) == digest(content)
        sources.add(message.connection.source)
    assert {lane_owners(node)[lane] for lane in sources} == {0, 1}


def test_pipelined_behind_a_long_body(node, mx):
    """The end of a long body and the next transaction in one segment: nothing is lost between the
    ways to receive."""
    content = text(700000, 5)
    with Talker(node.address, timeout=60) as talk:
        talk.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<pipe1@q.test>\r\nDATA\r\n" + content
                  + b".\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<pipe2@q.test>\r\nBDAT %d LAST\r\n" % len(content)
                  + content + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<pipe3@q.test>\r\nDATA\r\n" + content + b".\r\nQUIT\r\n")
        codes = [talk.reply(to).code for to in ["EHLO"] + ["c"] * 12]
        assert codes == [250, 250, 250, 354, 250, 250, 250, 250, 250, 250, 354, 250, 221]
    for i in (1, 2, 3):
        assert digest(mx.wait_of(f"pipe{i}@q.test").split()[1]) == digest(content)


def test_many_at_once_and_a_slow_reader(node, mx):
    """Back-pressure: eight clients with long bodies together; memory stays bounded by the pieces."""
    content = text(4 * MIB, 6)
    rcpts = [f"many{i}@m{i}.test" for i in range(8)]
    failed = []

    def one(rcpt):
        try:
            submit(node, content, rcpt, "DATA")
        except BaseException as e:  # told below, in the test's own thread
            failed.append((rcpt, e))

    threads = [threading.Thread(target=one, args=(r,)) for r in rcpts]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not failed
    for rcpt in rcpts:
        assert digest(mx.wait_of(rcpt, seconds=60).split()[1]) == digest(content)


def test_clients_that_vanish_in_a_long_body(node, mx):
    """The dialogs end long before their time limits, also when a reset comes together with data while
    the receive is stopped and begun again; pieces that are in the log already are dropped."""
    before = node.ledger()["accepted"]
    content = text(2 * MIB, 7)
    for i in range(6):
        for octets in (b"DATA\r\n", b"BDAT %d LAST\r\n" % (4 * MIB)):
            talk = Talker(node.address, timeout=60)
            talk.ehlo()
            talk.envelope(rcpts=[f"gone@g{i}.test"])
            talk.send(octets + content)
            if octets.startswith(b"DATA"):
                talk.reply("DATA")
            time.sleep(0.01 * i)  # at different depths; nothing depends on it
            talk.reset() if i % 2 else talk.close()
    wait_for("the end of the dialogs", lambda: node.stats()["total"]["open_in"] == 0)
    ledger = node.ledger()
    assert ledger["accepted"] == before and ledger["balance"] == 0
    submit(node, content, "after@gone.test", "DATA")
    assert digest(mx.wait_of("after@gone.test").split()[1]) == digest(content)


def test_long_mail_survives_a_kill(node, mx):
    content = text(3 * MIB, 8)
    node.cli("hold", "all", "--why", "test")
    for i in range(4):
        submit(node, content, f"kill@k{i}.test", "DATA" if i % 2 else "BDAT")
    node.kill9()
    node.start()
    node.cli("release", "all")
    for i in range(4):
        assert digest(mx.wait_of(f"kill@k{i}.test").split()[1]) == digest(content)


def test_ledger_balances_at_the_end(node):
    ledger = node.wait_queue_empty(60)
    assert ledger["balance"] == 0
