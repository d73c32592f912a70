"""A node with a valid certificate that means harm: the link is the real one, its master and its worker are the
test's. What it sends on both channels ends nobody, delivery goes on, and the log says so in a few lines."""
import itertools
import os
import random
import struct
import time

import pytest

import link_master
from carrier_worker import CarrierWorker
from control_wire import data, fields, number
from delivery import QUICK, FakeMX, balanced, send, wait_for
from link_master import LinkMaster
from test_cluster import Pair, cluster, log, peer

OURS, THEIRS, NOBODYS = "127.0.0.21", "127.0.0.23", "127.0.0.99"
(BEGIN, INVENTORY, CHUNK, ENQ, CHANGE, DROP, ACK, END, REFUSED, HAND, TAKEN, NOT_OWNER, TAIL_DONE, ASK,
 GONE) = range(1, 16)
EPOCHS = (0, 1, 2, 1 << 30, (1 << 30) + 1, (1 << 32) - 1)


def ip(text):
    return bytes(10) + b"\xff\xff" + bytes(int(x) for x in text.split("."))


def lane_status(address, epoch=1, role=1, owner="b"):
    return data(14, data(1, ip(address)) + data(2, "other") + data(3, owner) + number(4, epoch) + number(5, role) +
                number(6, 0) + number(7, 1))


def status(*lanes, node_id=999, first=1, last=1):
    return data(1, number(1, node_id) + data(2, "0.1.0") + number(3, 1) + number(4, 1) + number(5, 1) +
                number(7, 1 << 40) + data(9, "running") + number(10, 5) + number(11, first) + number(12, last) +
                b"".join(lanes))


def item(kind, lane=THEIRS, move=77, epoch=1, slot=1, pool="other", layout=1):
    return data(2, number(1, kind) + data(2, ip(lane)) + number(3, move) + number(4, epoch) + number(5, slot) +
                data(6, pool) + number(7, 3) + number(8, layout) + number(9, 1000))


def moves(*items):
    return data(2, data(1, number(1, 1) + b"".join(items)))


def query(number_, verb, *args):
    return data(3, number(1, number_) + data(2, verb) + b"".join(data(3, a) for a in args))


def rcpts(mx, letter):
    """Recipients that the exchanger accepted, of the sender with this letter."""
    all_ = (r.decode().removeprefix("RCPT TO:<").removesuffix(">") for m in mx.accepted for r in m.rcpts)
    return sorted(r for r in all_ if r.startswith(letter))


class Master(LinkMaster):
    """Sends what it is told, and keeps what it hears."""

    def __init__(self, *args, **more):
        self.todo, self.heard = [], []
        super().__init__(*args, **more)

    def received(self, peer_, c, seq, body):
        c.received = c.durable = seq
        self.heard.append(body)

    def fill(self):
        for (peer_, channel), c in self.channels.items():
            if c.durable != c.told:
                c.told = c.durable
                self.out.append((self.frame(link_master.ACK, peer_, channel, stream=c.peer_stream, seq=c.durable),
                                 None))
            while self.todo and c.up and not c.full and c.next - c.acked < 200 and len(self.out) < 200:
                self.out.append((self.frame(link_master.SEND, peer_, channel, seq=c.next, body=self.todo.pop(0)),
                                 None))
                c.next += 1

    def say(self, *bodies):
        with self.lock:
            self.todo += bodies

    def quiet(self):
        """All of it has been taken by the other master."""
        c = self.channels["a", link_master.CONTROL]
        wait_for("the other master to have read all", lambda: not self.todo and c.acked == c.next - 1, 60)

    def kinds(self):
        """Kinds of the items about moves that were heard."""
        out = []
        for body in list(self.heard):
            for field, value in fields(body):
                if field == 2:
                    out += [dict(fields(v))[1] for f, v in fields(dict(fields(value))[1]) if f == 2]
        return out


class Hostile(Pair):
    def __init__(self, mx):
        self.mx = mx
        super().__init__()
        self.b.remove()
        run = f"{self.dir}/b"
        text = link_master.config("b", run, self.wire["b"], {"a": self.wire["a"]}, f"{self.dir}/pki-b")
        self.b = Master("b", run, text, peers=("a", "b"))
        self.worker = None
        self.sent = 0

    def make(self, name):
        node = super().make(name)
        node.workers = 1
        node.routes = [("*", self.mx.address)]
        node.sections["queue"].update(QUICK)
        node.write_config()
        return node

    def start(self):
        self.a.start()
        self.b.start()
        self.worker = CarrierWorker(self.b, 0).attach()
        wait_for("the links", lambda: "a" in self.worker.waves and self.b.all_up())
        self.b.say(status(lane_status(THEIRS)))
        wait_for("a STATUS that is believed", lambda: peer(self.a, "b")["up"])
        self.before = (self.a.pids(), self.a.worker_pids())
        return self

    def mail(self, count=5):
        """Mail of a's own, which must come out whatever the other does."""
        for _ in range(count):
            send(self.a, f"m{self.sent:04}@d.test")
            self.sent += 1

    def ours(self):
        return rcpts(self.mx, "m")

    def check(self):
        """Nobody died, nothing was lost or came twice, and the log is not full of it."""
        self.mail()
        wait_for("mail", lambda: len(self.ours()) >= self.sent, 15)
        assert self.ours() == [f"m{i:04}@d.test" for i in range(self.sent)]
        assert (self.a.pids(), self.a.worker_pids()) == self.before, log(self.a)[-3000:]
        balanced(self.a)
        owners = {x["lane"]: x["owner"] for x in cluster(self.a)["lanes"]}
        assert owners[OURS] == "a"
        return log(self.a)

    def frames(self, *frames):
        assert self.worker.send("a", 0, b"".join(frames))

    def answers(self, kind):
        return [f for e in list(self.worker.events) if e[0] == "data" for f in heads(e[3]) if f[1] == kind]

    def remove(self):
        if self.worker:
            self.worker.close()
        self.b.close()
        self.a.stop()
        self.a.remove()
        super_dir, self.nodes = self.dir, {}
        super().remove()
        assert not os.path.exists(super_dir)


@pytest.fixture
def hostile():
    with FakeMX() as mx:
        h = Hostile(mx)
        yield h
        h.remove()


def test_garbage_for_the_master(hostile):
    """Bytes that are no frame, and frames that say what cannot be."""
    h = hostile.start()
    dice = random.Random(7)
    good = status(lane_status(THEIRS), lane_status(OURS))
    for n in range(300):
        h.b.say(dice.randbytes(dice.randrange(1, 2000)), good[:dice.randrange(1, len(good))])
        if n % 60 == 0:
            h.mail(1)
    h.b.say(b"\x0a\x00", data(1, b""), data(1, data(14, b"")) * 3, bytes(60000), data(4, number(1, 1)))
    h.b.say(*(status(lane_status(THEIRS, e)) for e in EPOCHS), *(status(lane_status(OURS, e, 1, "b")) for e in EPOCHS))
    h.b.say(*(status(*[lane_status(NOBODYS)] * 256, first=n == 0, last=0) for n in range(40)))
    h.b.say(*(status(lane_status(THEIRS), node_id=n) for n in (0, 65536, 1 << 31)))
    h.b.quiet()
    text = h.check()
    assert 1 <= text.count("cannot be read") <= 5, text[-3000:]
    assert text.count("too many lanes") <= 2
    assert text.count("has two owners") <= len(EPOCHS)
    lanes = {x["lane"]: x for x in cluster(h.a)["lanes"]}
    assert lanes[THEIRS]["epoch"] <= 1 << 30


def test_floods_for_the_master(hostile):
    """Thousands of moves and questions; it answers others meanwhile."""
    h = hostile.start()
    wild = [item(k, lane, m, e, s) for k, lane, m, e, s in itertools.product(
        range(0, 13), (OURS, THEIRS, NOBODYS), (1, (1 << 64) - 1), (1, 2, 1 << 30), (0, 1, 64))]
    for n in range(0, len(wild), 100):
        h.b.say(moves(*wild[n:n + 100]))
    h.b.say(*(moves(*[item(1, THEIRS, 1000 + n)]) for n in range(2000)))
    h.b.say(*(query(n + 1, "ledger") for n in range(500)), *(query(n + 1, "status", "x=y") for n in range(100)))
    h.b.say(*(query(n + 1, v, "=") for n, v in enumerate(("reload", "delete", "hold", "nothing", "lane_move"))))
    longest = 0
    for _ in range(20):
        since = time.time()
        h.a.api("status")
        longest = max(longest, time.time() - since)
        h.mail(1)
    h.b.quiet()
    assert longest < 10, "the master has no time for others"
    h.check()
    assert h.a.rss_bytes(h.a.process.pid) < 300 << 20 or h.a.sanitized()


# --- the worker ---

def lane_frame(kind, lane=OURS, move=0, position=0, epoch=1, items=(), meta=b"", rest=b"", **more):
    """items: (hi, lo, digest, index, origin)."""
    head = number(1, kind) + data(2, ip(lane)) + number(3, move) + number(4, position) + number(5, epoch)
    for field, value in more.items():
        head += number({"type": 6, "last": 7, "again": 8, "hand": 9}[field], value)
    if items:
        head += data(12, b"".join(struct.pack("<QQ", i[0], i[1]) for i in items))
        head += data(13, b"".join(struct.pack("<Q", i[2]) for i in items))
        head += data(14, b"".join(number(0, i[3])[1:] for i in items))
        head += data(15, b"".join(bytes([len(i[4])]) + i[4].encode() for i in items))
    if meta:
        head += number(16, len(meta))
    return struct.pack("<II", 8 + len(head) + len(meta) + len(rest), len(head)) + head + meta + rest


def heads(payload):
    """[(kind, ...)] of the frames in a payload, as {field: value} with the kind at 1."""
    out = []
    while payload:
        total, head = struct.unpack_from("<II", payload)
        out.append(dict(fields_loose(payload[8:8 + head])))
        payload = payload[total:]
    return out


def fields_loose(head):
    return fields(head)


def text8(s):
    return struct.pack("<B", len(s)) + s


def text16(s):
    return struct.pack("<H", len(s)) + s


BODY = b"From: x@y\r\nSubject: s\r\n\r\nbody\r\n"


def enq(lo, rcpts=((0, b"h%04d@d.test"),), *, hi=5, body_bytes=None, trace=0, flags=0, sender=b"s@t.test", chunks=(),
        reason=0, state=0, tenant=b"main", dots=0):
    """As proto/spool_record.c writes it."""
    out = struct.pack("<QQQIBHIQI", hi, lo, int(time.time() * 1000), 86400, 0, flags, dots,
                      len(BODY) if body_bytes is None else body_bytes, trace)
    out += text8(bytes([192, 0, 2, 1])) + text8(tenant) + text16(b"helo.test") + text16(sender) + text16(b"") + text8(b"")
    out += struct.pack("<HH", len(rcpts), len(chunks)) + text8(b"")
    for index, address in rcpts:
        if b"%" in address:
            address %= lo
        out += struct.pack("<HBBHQ", index, state, reason, 0, 0) + text16(address) + text16(b"") + text8(b"")
    for n in chunks:  # where they lie means nothing to others
        out += struct.pack("<QIII", 1, 8, n, n)
    return out


def hand(lo, meta, rest=BODY, hi=5, lane=OURS):
    return lane_frame(HAND, lane, position=1, items=[(hi, lo, 0, 0, "")], meta=meta, rest=rest)


def accepted(h):
    return rcpts(h.mx, "h")


def test_messages_that_are_none(hostile):
    """Hand-overs: an honest one is taken and sent; what would break the worker is not taken."""
    h = hostile.start()
    h.frames(hand(1, enq(1)), hand(2, enq(2, reason=255)))
    wait_for("the honest ones", lambda: accepted(h) == ["h0001@d.test", "h0002@d.test"])
    wait_for("TAKEN", lambda: len(h.answers(TAKEN)) >= 2)
    many = tuple((i, b"h%04d@d.test") for i in range(3))
    lies = [dict(body_bytes=len(BODY) - 1), dict(body_bytes=len(BODY) + 1), dict(body_bytes=0, flags=1),
            dict(body_bytes=(1 << 64) - 1, trace=len(BODY) + 1), dict(trace=1), dict(body_bytes=1 << 40),
            dict(sender=b"a" * 5000), dict(sender=b"a@b>\r\nRSET\r\nx<"), dict(rcpts=((0, b""),)),
            dict(rcpts=((0, b"h\x00x@d.test"),)), dict(rcpts=((3, b"h1@d.test"), (3, b"h2@d.test"))),
            dict(rcpts=((0, b"h" * 60000),)), dict(hi=0), dict(chunks=(7,)), dict(dots=100), dict(state=99),
            dict(flags=0x8000), dict(rcpts=())]
    for n, lie in enumerate(lies):
        h.frames(hand(0 if "hi" in lie else 100 + n, enq(0 if "hi" in lie else 100 + n, **lie), hi=lie.get("hi", 5)))
    h.frames(hand(200, enq(201)), hand(202, enq(202)[:-1]), hand(203, b""), hand(204, os.urandom(300)))
    for lane in (THEIRS, NOBODYS):
        h.frames(hand(210, enq(210), lane=lane))
    h.frames(*(lane_frame(CHUNK, OURS, position=p, items=[(5, 300 + p, 0, 0, "")], rest=b"x" * 5, hand=1)
               for p in range(0, 5)))
    h.frames(lane_frame(CHUNK, OURS, position=1, items=[(5, 400, 0, 0, "")], rest=b"12345", hand=1),
             hand(400, enq(400, chunks=(20,), body_bytes=20), b""))
    h.frames(hand(3, enq(3, rcpts=many)))  # the last one: what came before it has been looked at
    wait_for("the last one", lambda: len(accepted(h)) >= 5, 15)
    h.check()
    assert accepted(h) == ["h0001@d.test", "h0002@d.test"] + ["h0003@d.test"] * 3
    assert len(h.a.api("queue")) >= 0


def test_garbage_for_the_worker(hostile):
    """No frames, and every kind about every lane with every epoch, from somebody who has nothing to say of them."""
    h = hostile.start()
    dice = random.Random(11)
    items = [(5, 1, 0, 0, "b"), (0, 9, 1, 65535, ""), (1 << 63, (1 << 64) - 1, 2, 7, "nobody")]
    for n in range(300):
        h.frames(dice.randbytes(dice.randrange(1, 3000)))
        whole = lane_frame(dice.randrange(1, 20), items=items, meta=b"meta", rest=b"rest")
        h.frames(whole[:dice.randrange(1, len(whole))])
        if n % 60 == 0:
            h.mail(1)
    for kind, lane, epoch in itertools.product(range(0, 18), (OURS, THEIRS, NOBODYS), EPOCHS):
        h.frames(lane_frame(kind, lane, 77, 1 << 32, epoch, items, b"meta", b"rest", type=4, last=1))
    h.frames(*(lane_frame(ASK, OURS, items=items * 1000) for _ in range(50)))
    text = h.check()
    assert 1 <= text.count("cannot be read") <= 5, text[-3000:]


def test_copies_that_lie(hostile):
    """As the owner of a lane it has the right to send a copy; of that, and no more."""
    h = hostile.start()
    h.b.say(moves(item(1)))
    wait_for("PREPARE_OK", lambda: 2 in h.b.kinds())

    beginning = itertools.count(1)

    def copy(*frames, read=True):
        high = next(beginning) << 32
        refused = len(h.answers(REFUSED))
        out = [lane_frame(BEGIN, THEIRS, 77, high)]
        out += [lane_frame(kind, THEIRS, 77, high + n + 1, **more) for n, (kind, more) in enumerate(frames)]
        h.frames(*out)
        if read:  # else it is dropped, and the next beginning takes its place
            wait_for(f"a refusal of {frames[0][0]}", lambda: len(h.answers(REFUSED)) > refused)

    none = (0, 0, 0, 0, "x")
    copy((END, dict(items=[none], last=1)), read=False)
    copy((ENQ, dict(meta=enq(1, body_bytes=3), rest=BODY)))
    copy((ENQ, dict(meta=enq(1, sender=b"x" * 4000), rest=BODY)))
    copy((ENQ, dict(meta=enq(1, flags=16), rest=BODY)))
    copy((CHANGE, dict(meta=b"x", type=5)))
    copy((CHUNK, dict(items=[(5, 9, 0, 3, "")], rest=b"x")))
    copy(*((CHUNK, dict(items=[(6, n + 1, 0, 0, "")], rest=b"x")) for n in range(300)))
    text = h.check()
    assert text.count("is refused") >= 6
    h.b.say(moves(item(8, epoch=2)))  # it gave up
    wait_for("the lane to be away again",
             lambda: {x["lane"]: x["role"] for x in cluster(h.a)["lanes"]}[THEIRS] == "away")
    h.check()
