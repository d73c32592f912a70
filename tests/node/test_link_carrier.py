"""Carriers: workers of two nodes speak through two mochila-link processes. In order and nothing missing while a
peer is up; after a loss both ends hear UP again, and nothing from before comes after it."""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import pytest

import link_master
from carrier_worker import DATA, UP, CarrierWorker, frame
from link_master import CONTROL, LinkMaster, cluster
from test_link import free_ports, wait_for

RATE = os.path.join(link_master.BUILD, "tests/carrier_rate")
BAR_MB_S = 100


class Nodes:
    def __init__(self, directory, names=("a", "b")):
        self.dir = directory
        ports = free_ports(len(names))
        wire = {n: f"127.0.0.1:{p}" for n, p in zip(names, ports)}
        ca = f"{directory}/ca"
        cluster("init", "west", "--dir", ca)
        self.masters, self.workers = {}, []
        for name in names:
            cluster("issue", name, "--dir", ca, "--out", f"{directory}/{name}.bundle")
            cluster("join", f"{directory}/{name}.bundle", "--dir", f"{directory}/pki-{name}")
            others = {n: e for n, e in wire.items() if n != name}
            text = link_master.config(name, f"{directory}/{name}", wire[name], others, f"{directory}/pki-{name}")
            self.masters[name] = LinkMaster(name, f"{directory}/{name}", text, peers=names)

    def start(self):
        for m in self.masters.values():
            m.start()
        return self

    def worker(self, name, slot=0):
        w = CarrierWorker(self.masters[name], slot)
        self.workers.append(w)
        return w.attach()

    def log(self, name):
        return self.masters[name].log()

    def close(self):
        for w in self.workers:
            w.close()
        for m in self.masters.values():
            m.close()


@pytest.fixture
def nodes():
    directory = tempfile.mkdtemp(prefix="mochila-carrier-")
    n = Nodes(directory)
    try:
        yield n
    finally:
        n.close()
        shutil.rmtree(directory)


def met(*pairs):
    wait_for(lambda: all(w.up(node) for w, node in pairs), what="everybody up")


def settle(*workers):
    """Until nobody has heard anything new for a moment."""
    def heard():
        return [len(w.events) for w in workers]
    last, since = heard(), time.time()
    while time.time() - since < 0.3:
        time.sleep(0.02)
        if heard() != last:
            last, since = heard(), time.time()


def numbered(i, size=2000):
    return struct.pack("<Q", i) + bytes([i % 251]) * (size - 8)


def stream(worker, node, slot, first, count, size=2000):
    for i in range(first, first + count):
        assert worker.send(node, slot, numbered(i, size))


def numbers(frames):
    out = []
    for _, payload in frames:
        i, = struct.unpack_from("<Q", payload)
        assert payload == numbered(i, len(payload)), "damaged"
        out.append(i)
    return out


def test_both_ways_in_order(nodes):
    nodes.start()
    a0, a1, b0, b5 = nodes.worker("a", 0), nodes.worker("a", 1), nodes.worker("b", 0), nodes.worker("b", 5)
    met((a0, "b"), (a1, "b"), (b0, "a"), (b5, "a"))
    settle(a0, a1, b0, b5)
    since = [len(w.events) for w in (a0, a1, b0, b5)]
    for i in range(0, 3000, 50):
        stream(a0, "b", 5, i, 50)
        stream(a1, "b", 5, i, 50, 9)
        stream(b0, "a", 1, i, 50, 300)
        assert a0.send("b", 0, numbered(i, 640 << 10))
    wait_for(lambda: len(b5.data(since[3])) == 6000 and len(a1.data(since[1])) == 3000 and
             len(b0.data(since[2])) == 60, 30)
    assert numbers([f for f in b5.data(since[3]) if f[0] == 0]) == list(range(3000))
    assert numbers([f for f in b5.data(since[3]) if f[0] == 1]) == list(range(3000))
    assert numbers(a1.data(since[1])) == list(range(3000))
    assert numbers(b0.data(since[2])) == list(range(0, 3000, 50))
    assert a0.data() == []
    assert all(e[0] == "data" for w, n in zip((a0, a1, b0, b5), since) for e in w.events[n:]), "nothing was lost"


def test_a_slot_without_a_worker(nodes):
    """Nobody holds it: the frames are lost, all else goes on, and UP tells when somebody does."""
    nodes.start()
    a, b = nodes.worker("a"), nodes.worker("b")
    met((a, "b"), (b, "a"))
    stream(a, "b", 7, 0, 1000)
    stream(a, "b", 0, 0, 1000)
    wait_for(lambda: len(b.data()) == 1000)
    ups = a.count("up", "b")
    late = nodes.worker("b", 7)
    met((late, "a"))
    wait_for(lambda: a.count("up", "b") > ups)
    assert late.data() == []
    stream(a, "b", 7, 5000, 10)
    wait_for(lambda: len(late.data()) == 10)


class Streams:
    """a streams to b without a pause, from the beginning after each UP; b insists on just that."""

    def __init__(self, a, b):
        self.a, self.b = a, b
        self.ups, self.next, self.round = -1, 0, 0

    def go(self, seconds=0.5):
        end = time.time() + seconds
        while time.time() < end:
            with self.a.lock:
                ups = self.a.count("up", "b")
                if ups != self.ups:
                    self.ups, self.next, self.round = ups, 0, self.round + 1
            if self.a.waiting() < 1 << 20:
                with self.a.lock:  # the UP that a frame answers is the one it was counted for
                    wave = self.a.waves.get("b")
                    if wave is not None and self.a.sock and self.a.count("up", "b") == self.ups:
                        for _ in range(50):
                            payload = struct.pack("<QQ", self.round, self.next) + bytes(3000)
                            self.a.out += frame(DATA, self.b.slot, "b", wave, payload)
                            self.next += 1
            else:
                time.sleep(0.001)

    def check(self, least=2):
        """Since each UP of b at most one round, which began with 0 and has no gap."""
        heads, current = [], None
        for e in list(self.b.events):
            if e[0] in ("up", "down"):
                current = None
            if e[0] != "data":
                continue
            turn, i = struct.unpack_from("<QQ", e[3])
            if current is None:
                assert i == 0, f"round {turn} begins with {i}"
                assert turn not in heads, "a round of before comes after UP"
                heads.append(turn)
                current = (turn, -1)
            assert current == (turn, i - 1), f"{turn}, {i} after {current}"
            current = (turn, i)
        assert heads == sorted(heads)
        assert len(heads) >= least, heads
        return heads


@pytest.mark.parametrize("victim", ["a", "b"])
def test_killed_link(nodes, victim):
    nodes.start()
    a, b = nodes.worker("a"), nodes.worker("b")
    met((a, "b"), (b, "a"))
    s = Streams(a, b)
    s.go()
    for _ in range(3):
        m = nodes.masters[victim]
        m.kill(signal.SIGKILL)
        s.go(0.1)
        m.start()
        (a if victim == "a" else b).attach()
        wait_for(lambda: a.up("b") and b.up("a"))
        s.go()
    settle(a, b)
    s.check(4)
    assert a.count("down", "b") >= 1 or victim == "a"


def test_new_worker(nodes):
    """A restarted worker, at either end: the streams begin anew, and no frame of before reaches the new one."""
    nodes.start()
    a, b = nodes.worker("a"), nodes.worker("b")
    other = nodes.worker("b", 1)
    met((a, "b"), (b, "a"), (other, "a"))
    s = Streams(a, b)
    for w in (b, a, b, b, a):
        s.go(0.3)
        w.attach()
    met((a, "b"), (b, "a"))
    s.go(0.3)
    settle(a, b)
    s.check(4)
    assert other.data() == []
    assert "down" not in nodes.log("a") + nodes.log("b"), "the link itself was never touched"


def test_stopped_link(nodes):
    """Silence of a second: down, then up, and the rounds are whole."""
    nodes.start()
    a, b = nodes.worker("a"), nodes.worker("b")
    met((a, "b"), (b, "a"))
    s = Streams(a, b)
    s.go()
    nodes.masters["b"].process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: a.count("down", "b") == 1, 5, "silence noticed")
        assert not a.send("b", 0, b"x")
    finally:
        nodes.masters["b"].process.send_signal(signal.SIGCONT)
    met((a, "b"), (b, "a"))
    s.go()
    settle(a, b)
    s.check(2)


def rss_bytes(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) << 10


def test_worker_that_does_not_read(nodes):
    """It holds the others up for some seconds at most, memory is bounded, control goes on, and it can come back."""
    nodes.start()
    a, b0, b1 = nodes.worker("a"), nodes.worker("b", 0), nodes.worker("b", 1)
    met((a, "b"), (b0, "a"), (b1, "a"))
    settle(a, b0, b1)
    b1.reads = False
    s = Streams(a, b1)
    s.go(3)
    assert a.waiting() >= 1 << 20, "back-pressure reaches the sender"
    nodes.masters["a"].send("b", CONTROL, 100)
    wait_for(nodes.masters["a"].all_acked, 5)
    sanitized = "san" in os.path.basename(link_master.BUILD)  # keeps what was freed
    assert sanitized or rss_bytes(nodes.masters["b"].process.pid) < 100 << 20
    ups = a.count("up", "b")
    wait_for(lambda: a.count("up", "b") > ups, 10, "its queue is thrown away")
    assert nodes.log("b").count("does not read") == 1, nodes.log("b")
    stream(a, "b", 0, 0, 100)
    wait_for(lambda: len(b0.data()) == 100)
    b1.reads = True
    settle(a, b1)
    s.go(0.5)
    settle(a, b1)
    s.check(2)


@pytest.mark.parametrize("garbage", [
    os.urandom(4096),
    frame(DATA, 64, "b", 1, b"x"),
    struct.pack("<IIII32s", DATA, 0, (640 << 10) + 1, 1, b"b"),
    struct.pack("<IIII32s", DATA, 0, 0, 1, b"b"),
    struct.pack("<IIII32s", UP, 0, 0, 1, b"b"),
    struct.pack("<IIII32s", DATA, 0, 1, 1, b"B") + b"x",
    struct.pack("<IIII32s", DATA, 0, 1, 1, b"b\0b") + b"x"])
def test_garbage_of_a_worker(nodes, garbage):
    """It loses its descriptor; the others do not notice."""
    nodes.start()
    a, rogue, b = nodes.worker("a"), nodes.worker("a", 3), nodes.worker("b")
    met((a, "b"), (rogue, "b"), (b, "a"))
    settle(a, rogue, b)
    since = len(b.events)
    rogue.raw(garbage)
    wait_for(lambda: ("lost",) in rogue.events)
    stream(a, "b", 0, 0, 100)
    wait_for(lambda: len(b.data(since)) == 100)
    assert "carrier slot=3: what the worker says is malformed" in nodes.log("a")
    rogue.attach()
    met((rogue, "b"))


def test_frames_for_nobody(nodes):
    """Nodes that are none, waves that are over, our own name: dropped without a word."""
    nodes.start()
    a, b = nodes.worker("a"), nodes.worker("b")
    met((a, "b"), (b, "a"))
    settle(a, b)
    since = len(b.events)
    for node, wave in (("a", 1), ("z", 1), ("b", a.waves["b"] - 1), ("b", a.waves["b"] + 1)):
        a.raw(frame(DATA, 0, node, wave, b"wrong"))
    stream(a, "b", 0, 0, 3)
    wait_for(lambda: len(b.data(since)) == 3)
    assert numbers(b.data(since)) == [0, 1, 2]


def rate(nodes, size, total_bytes):
    """MB/s from a worker of a to a worker of b, all in C."""
    count = total_bytes // size
    programs = []
    for name, other, args in (("b", "a", ["receive", str(count)]), ("a", "b", ["send", str(size), str(count)])):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for s in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                s.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
            s.setblocking(False)
        nodes.masters[name].carrier(0, theirs)
        command = [RATE, str(ours.fileno()), other, "0", *args]
        if name == "a":
            time.sleep(0.3)  # the receiver's attachment is another UP: not after frames
        programs.append(subprocess.Popen(command, pass_fds=[ours.fileno()], stdout=subprocess.PIPE, text=True))
        ours.close()
    out = [p.communicate(timeout=120)[0] for p in programs]
    assert [p.returncode for p in programs] == [0, 0]
    return float(out[1])


@pytest.mark.skipif(not os.path.exists(RATE), reason="needs tests/carrier_rate")
def test_rate(nodes):
    nodes.start()
    wait_for(lambda: all("bulk channel up" in m.log() for m in nodes.masters.values()))
    size = int(os.environ.get("CARRIER_SIZE", 10240))
    mb_s = rate(nodes, size, int(os.environ.get("CARRIER_MB", 200)) << 20)
    print(f"\ncarrier: {mb_s:.0f} MB/s of {size} bytes")
    if os.environ.get("CARRIER_BAR"):
        assert mb_s >= BAR_MB_S
