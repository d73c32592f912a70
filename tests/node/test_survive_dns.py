"""A resolver that is not there, or lies: mail waits and is delivered when it tells the truth; nothing bounces, nothing dies."""
import glob
import random
import re
import socket
import struct
import threading

import pytest

import survive

dns = pytest.importorskip("dns.message", reason="SKIPPED: python3-dnspython is not installed")
import dns.flags    # noqa: E402
import dns.message  # noqa: E402
import dns.rcode    # noqa: E402
import dns.rrset    # noqa: E402

COUNT = 30


class Resolver:
    """UDP and TCP on one port; `mode` is the name of one of the methods below."""

    def __init__(self, port):
        self.port = port
        self.mode = "truth"
        self.asked = 0
        self.over = threading.Event()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", port))
        self.udp.settimeout(0.1)
        self.tcp = socket.create_server(("127.0.0.1", port))
        self.tcp.settimeout(0.1)
        self.rng = random.Random(1)
        self.threads = [threading.Thread(target=f) for f in (self.serve_udp, self.serve_tcp)]
        for t in self.threads:
            t.start()

    def close(self):
        self.over.set()
        for t in self.threads:
            t.join()
        self.udp.close()
        self.tcp.close()

    def serve_udp(self):
        while not self.over.is_set():
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                continue
            self.asked += 1
            for answer in getattr(self, self.mode)(data):
                self.udp.sendto(answer, peer)

    def serve_tcp(self):
        while not self.over.is_set():
            try:
                c, _ = self.tcp.accept()
            except OSError:
                continue
            c.settimeout(0.5)
            try:
                size = struct.unpack("!H", c.recv(2))[0]
                for answer in getattr(self, self.mode)(c.recv(size)):
                    c.sendall(struct.pack("!H", len(answer)) + answer)
            except (OSError, struct.error):
                pass
            c.close()

    # --- what it may say ---
    def truth(self, data):
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        name, kind = query.question[0].name, query.question[0].rdtype
        if kind == 15:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "MX", "10 mx.lies.test."))
        elif kind == 1:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "127.0.0.1"))
        return [answer.to_wire()]

    def silence(self, data):
        return []

    def noise(self, data):
        """Random octets, some behind the right id."""
        junk = bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(0, 600)))
        return [junk, data[:2] + junk]

    def wrong_id(self, data):
        """A forged answer that leads elsewhere: only the id is wrong."""
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.NXDOMAIN)
        wire = answer.to_wire()
        return [struct.pack("!H", struct.unpack("!H", wire[:2])[0] ^ 0x5555) + wire[2:]]

    def other_question(self, data):
        """The right id, an answer to something else."""
        answer = dns.message.make_response(dns.message.make_query("elsewhere.test.", "MX"))
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return [data[:2] + answer.to_wire()[2:]]

    def huge(self, data):
        """Tens of thousands of octets of records that promise more than there are."""
        query = dns.message.from_wire(data)
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, 65535, 65535, 65535)
        record = b"\xc0\x0c" + struct.pack("!HHIH", query.question[0].rdtype, 1, 60, 65535)
        return [(head + data[12:] + record * 6000)[:60000]]

    def loops(self, data):
        """Compression pointers that point at themselves."""
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, 2, 0, 0)
        at = len(data)
        pointer = struct.pack("!H", 0xC000 | at)
        return [head + data[12:] + pointer + struct.pack("!HHIH", 15, 1, 60, 4) + b"\0\x0a" + pointer]

    def servfail(self, data):
        answer = dns.message.make_response(dns.message.from_wire(data))
        answer.set_rcode(dns.rcode.SERVFAIL)
        return [answer.to_wire()]

    def cut_off(self, data):
        """TC over UDP and over TCP too."""
        return [data[:2] + struct.pack("!HHHHH", 0x8380, 1, 0, 0, 0) + data[12:]]


@pytest.fixture
def place():
    port = survive.free_port()
    node = survive.Node(workers=2, via="mx",
                        extra={"dns": {"enabled": "true", "servers": f'["127.0.0.1:{port}"]', "query": "100ms",
                                       "total": "500ms"},
                               "client": {"port": 0, "allow_loopback": "true"}})
    node.extra["client"]["port"] = node.sink_port
    node.write_config()
    ends = [node]
    try:
        yield node, port, ends
    finally:
        for end in reversed(ends):
            end.close()


def send(node, ends, name, count=COUNT):
    """Mail to domains of its own, so that no answer of before is remembered."""
    domains = ",".join(f"{name}{i}.test" for i in range(10))
    source = survive.Source(node.dir, node.port, "--count", str(count), "--connections", "5", "--domains", domains,
                            name=name)
    ends.append(source)
    assert source.wait()["accepted"] == count
    return source


def deferrals(node, name):
    """Deferrals of that mail so far, from the events."""
    count = 0
    for path in glob.glob(f"{node.dir}/log/events*.jsonl"):
        with open(path) as f:
            count += sum('"event":"deferred"' in line and re.search(rf'["@]{name}\d\.test"', line) is not None
                         for line in f)
    return count


def settle(node, sink, sources, count):
    ledger = survive.drained(node, 60)
    assert ledger["delivered"] == count and survive.balanced(ledger), ledger
    promised = set().union(*(s.promised() for s in sources))
    assert survive.judge(promised, sink.finish(), 0) == []
    assert node.unplanned() == []


def test_absent_resolver(place):
    """Nobody answers at its port, and then somebody does."""
    node, port, ends = place
    sink = survive.Sink(node.dir, node.sink_port)
    ends.append(sink)
    node.start()
    source = send(node, ends, "absent")
    survive.wait_for("lookups to fail", lambda: deferrals(node, "absent") >= 5, 30)
    ledger = node.ledger()
    assert ledger["queued"] == COUNT, ledger
    ends.append(Resolver(port))
    settle(node, sink, [source], COUNT)


def test_lying_resolver(place):
    """Each lie makes mail wait; the truth brings it out."""
    node, port, ends = place
    resolver = Resolver(port)
    ends.append(resolver)
    sink = survive.Sink(node.dir, node.sink_port)
    ends.append(sink)
    node.start()
    lies = ["silence", "noise", "wrong_id", "other_question", "huge", "loops", "servfail", "cut_off"]
    sources = []
    for lie in lies:
        resolver.mode = lie
        name = lie.replace("_", "-")
        sources.append(send(node, ends, name))

        def failed():
            return deferrals(node, name) >= 5
        survive.wait_for(f"lookups to fail ({lie})", failed, 30)
        ledger = node.ledger()
        assert ledger["queued"] == len(sources) * COUNT, (lie, ledger)
    resolver.mode = "truth"
    settle(node, sink, sources, len(lies) * COUNT)
