"""Two mochila-link processes, each with a master of the test: streams both ways on the control channel, and
everything that may happen to links. The bulk channel, of the workers, has its tests in test_link_carrier.py. With root they live in two network namespaces with a cable between them,

    10.99.7.1 a ---------- b 10.99.7.2      fd99::1 ---------- fd99::2

without it on loopback. After each trouble: every frame once, in order, and one clear line in the log."""
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import pytest

import link_master
from link_master import CONTROL, CLI, LinkMaster, cluster

ROOT = os.geteuid() == 0 and shutil.which("ip") is not None
PORT = 7525
NETNS = {"a": f"mo-la-{os.getpid()}", "b": f"mo-lb-{os.getpid()}"}


def wait_for(condition, seconds=15, what="the condition"):
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return
        time.sleep(0.01)
    assert condition(), f"{what}: not within {seconds} s"


def ip(*command, check=True):
    return subprocess.run(["ip", *command], check=check, capture_output=True, text=True)


def free_ports(n):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


@pytest.fixture(scope="module")
def wire():
    """Addresses of the two nodes: {"a": "address:port"}."""
    if not ROOT:
        ports = free_ports(2)
        yield {"a": f"127.0.0.1:{ports[0]}", "b": f"127.0.0.1:{ports[1]}"}
        return
    try:
        for name in NETNS.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", NETNS["a"], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", NETNS["b"])
        for i, name in enumerate(NETNS.values()):
            ip("-n", name, "addr", "add", f"10.99.7.{i + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield {"a": f"10.99.7.1:{PORT}", "b": f"10.99.7.2:{PORT}"}
    finally:
        for name in NETNS.values():
            ip("netns", "del", name, check=False)


class Pair:
    def __init__(self, wire, directory):
        self.wire, self.dir = wire, directory
        self.ca = f"{directory}/ca"
        cluster("init", "west", "--dir", self.ca)
        self.nodes = {}
        for name, other in (("a", "b"), ("b", "a")):
            self.join(name)
            run = f"{directory}/{name}"
            text = link_master.config(name, run, wire[name], {other: wire[other]}, f"{directory}/pki-{name}")
            self.nodes[name] = LinkMaster(name, run, text, NETNS[name] if ROOT else None)
        self.a, self.b = self.nodes["a"], self.nodes["b"]

    def join(self, name, uri_name=None):
        bundle = f"{self.dir}/{name}.bundle"
        cluster("issue", uri_name or name, "--dir", self.ca, "--out", bundle)
        cluster("join", bundle, "--dir", f"{self.dir}/pki-{name}")
        os.unlink(bundle)

    def start(self):
        self.a.start()
        self.b.start()
        self.wait_up()
        return self

    def wait_up(self):
        wait_for(lambda: self.a.all_up() and self.b.all_up(), what=self.state())

    def load(self, count=600):
        for one, other in ((self.a, "b"), (self.b, "a")):
            one.send(other, CONTROL, count)

    def finish(self):
        """All that was sent has arrived, once and in order, and is acknowledged."""
        wait_for(lambda: self.a.all_acked() and self.b.all_acked(), 30, "all frames: " + self.state())
        for one in (self.a, self.b):
            assert one.errors == []
            assert one.process.poll() is None
        for (peer, number), c in self.a.channels.items():
            assert c.acked == c.target
            assert self.b.channels["a", number].received == c.target
        for (peer, number), c in self.b.channels.items():
            assert self.a.channels["b", number].received == c.target

    def state(self):
        return "; ".join(f"{n.name} {k}: up={c.up} target={c.target} acked={c.acked} received={c.received}"
                         for n in self.nodes.values() for k, c in n.channels.items())

    def half_way(self):
        c = self.a.channels["b", CONTROL]
        wait_for(lambda: c.acked > c.target // 10, what="some progress: " + self.state())
        assert c.acked < c.target, "the load is over too soon: nothing would be in flight"


@pytest.fixture
def pair(wire):
    directory = tempfile.mkdtemp(prefix="mochila-link-")
    p = Pair(wire, directory)
    try:
        yield p
    finally:
        for node in p.nodes.values():
            node.close()
        shutil.rmtree(directory)


def in_netns(name, script, *args):
    """A program of ours on the host of a node."""
    command = [sys.executable, "-c", script, *args]
    if ROOT:
        command = ["ip", "netns", "exec", NETNS[name]] + command
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_frames_both_ways(pair):
    pair.start()
    pair.load(4000)
    pair.finish()
    assert os.stat(f"{pair.dir}/a/link").st_mode & 0o777 == 0o700
    assert set(os.listdir(f"{pair.dir}/a/link")) == {"b.control", "b.bulk"}
    # Nothing of nanomsg listens anywhere but there: one TCP listener, and that one speaks TLS.
    ss = ["ss", "-H", "-ltn"]
    out = subprocess.run((["ip", "netns", "exec", NETNS["a"]] if ROOT else []) + ss, capture_output=True, text=True)
    if ROOT:
        assert [line.split()[3] for line in out.stdout.splitlines()] == [pair.wire["a"]]


def test_master_that_hangs(pair):
    """What the peer sends meanwhile waits; the wire is not silent for that, and nothing is lost."""
    pair.start()
    pair.b.hangs = True
    pair.a.send("b", CONTROL, 1000)
    c = pair.a.channels["b", CONTROL]
    wait_for(lambda: c.next > 150, what=pair.state())
    beats = time.time() + 1.5  # longer than silence is allowed to be
    wait_for(lambda: time.time() > beats)
    assert "down" not in pair.a.log() + pair.b.log()
    assert c.acked == 0
    pair.b.hangs = False
    pair.finish()


@pytest.mark.parametrize("victim", ["a", "b"])
def test_killed_link(pair, victim):
    pair.start()
    pair.load(2000)
    for _ in range(3):
        pair.half_way()
        node = pair.nodes[victim]
        node.kill(signal.SIGKILL)
        node.start()
        pair.load(800)
    pair.finish()
    other = pair.nodes["b" if victim == "a" else "a"]
    assert "down:" in other.log()


def test_both_killed(pair):
    pair.start()
    pair.load(2000)
    pair.half_way()
    pair.a.kill()
    pair.b.kill()
    pair.b.start()
    pair.a.start()
    pair.finish()


def test_stopped_link_is_silent(pair):
    """A link that hangs is no link: after a second the peer has closed it, and it comes back by itself."""
    pair.start()
    pair.load()
    pair.half_way()
    pair.a.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: "silent for a second" in pair.b.log(), 5, "silence noticed")
    finally:
        pair.a.process.send_signal(signal.SIGCONT)
    pair.wait_up()
    pair.finish()


@pytest.mark.skipif(not ROOT, reason="needs root for network namespaces: no cable to cut on loopback")
def test_cable(pair):
    pair.start()
    pair.load(3000)
    pair.half_way()
    wait_for(lambda: all("bulk channel up" in n.log() for n in pair.nodes.values()), what="the other channel")
    ip("-n", NETNS["a"], "link", "set", "eth0", "down")
    try:
        wait_for(lambda: not any(c.up for n in pair.nodes.values() for c in n.channels.values()), 5,
                 "both sides notice: " + pair.state())
    finally:
        ip("-n", NETNS["a"], "link", "set", "eth0", "up")
    pair.wait_up()
    pair.finish()
    for node in (pair.a, pair.b):
        assert node.log().count("channel down: silent for a second") == 2, node.log()


@pytest.mark.skipif(not ROOT, reason="needs root for network namespaces: no slow wire on loopback")
def test_slow_wire(pair):
    """10 Mbit/s: a saturated wire is not a silent one."""
    tc = subprocess.run(["ip", "netns", "exec", NETNS["a"], "tc", "qdisc", "add", "dev", "eth0", "root", "tbf",
                         "rate", "10mbit", "burst", "32kb", "latency", "200ms"], capture_output=True, text=True)
    if tc.returncode != 0:
        pytest.skip("no tbf here: " + tc.stderr.strip())
    try:
        pair.start()
        pair.a.send("b", CONTROL, 250)
        pair.finish()
        assert "down" not in pair.a.log() + pair.b.log()
    finally:
        subprocess.run(["ip", "netns", "exec", NETNS["a"], "tc", "qdisc", "del", "dev", "eth0", "root"], check=False)


GARBAGE = r"""
import os, socket, sys
host, port = sys.argv[1].rsplit(":", 1)
for i, data in enumerate([os.urandom(4096), b"GET / HTTP/1.1\r\n\r\n", b"\0SP\0\0\x10\0\0", b"\x16\x03\x01\xff\xff" + b"x" * 70000,
                          b"", b"\x16\x03\x01\0\x05\x01\0\0\x01\0"] * 5):
    s = socket.create_connection((host, int(port)), 5)
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        s.settimeout(5)
        while s.recv(4096):
            pass
    except OSError:
        pass
    s.close()
print("done", flush=True)
"""


def test_garbage_on_the_port(pair):
    pair.start()
    pair.load()
    p = in_netns("b", GARBAGE, pair.wire["a"])
    assert p.communicate(timeout=30)[0] == "done\n"
    pair.finish()
    refused = re.findall(r"warn.*refused a connection from \S+ (.*)", pair.a.log())
    assert any("does not speak the link's TLS: http request" in line for line in refused), refused
    # Thirty connections of six kinds: a line for each kind, not for each connection.
    assert 2 <= len(refused) <= 12, refused
    assert "down" not in pair.a.log()


LORIS = r"""
import socket, sys
host, port = sys.argv[1].rsplit(":", 1)
socks = []
for _ in range(100):
    try:
        socks.append(socket.create_connection((host, int(port)), 5))
        socks[-1].send(b"\x16")
    except OSError:
        pass
print("open", flush=True)
sys.stdin.readline()
"""


def test_slow_loris(pair):
    """A hundred connections that say one byte: the peer still gets in, and they are ended in time."""
    pair.a.start()
    wait_for(lambda: pair.a.ready and "listening" in pair.a.log(), what="a listens")
    p = in_netns("b", LORIS, pair.wire["a"])
    assert p.stdout.readline() == "open\n"
    started = time.time()
    if ROOT:
        pair.b.start()
        with pytest.raises(AssertionError):
            wait_for(pair.b.all_up, 0.3)  # the same address: it shares the fate of its neighbours, for now
    else:
        pair.b.start()
    pair.wait_up()
    assert time.time() - started < 10
    p.communicate("\n", timeout=10)
    pair.load()
    pair.finish()
    assert "too many connections of this address that say nothing" in pair.a.log()
    assert "no TLS handshake in time" in pair.a.log()


def openssl(*args, **kw):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, **kw)


def foreign(pair, directory, uri="mochila://west/node/b", ca=None, expired=False):
    """Certificate files made by other means than our own tool."""
    os.makedirs(directory)
    ext = f"{directory}/ext"
    with open(ext, "w") as f:
        f.write(f"subjectAltName=URI:{uri}\nextendedKeyUsage=serverAuth,clientAuth\n")
    if ca is None:
        ca = f"{directory}/own-ca"
        cluster("init", "west", "--dir", ca)
    key, csr, cert = f"{directory}/node.key", f"{directory}/csr", f"{directory}/node.pem"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
            "-subj", "/CN=x", "-out", csr)
    days = ["-days", "-1"] if expired else ["-days", "5"]
    openssl("x509", "-req", "-in", csr, "-CA", f"{ca}/ca.pem", "-CAkey", f"{ca}/ca.key", "-extfile", ext,
            "-out", cert, *days)
    return cert, key


HANDSHAKE = r"""
import socket, ssl, sys
host, port = sys.argv[1].rsplit(":", 1)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
if len(sys.argv) > 3:
    c.load_cert_chain(sys.argv[2], sys.argv[3])
if len(sys.argv) > 4:
    c.maximum_version = ssl.TLSVersion.TLSv1_2
try:
    s = c.wrap_socket(socket.create_connection((host, int(port)), 5))
    s.settimeout(5)
    s.sendall(b"mochila0")
    got = s.recv(100)
    print("in" if got else "out", flush=True)
except (OSError, ssl.SSLError):
    print("out", flush=True)
"""


def test_wrong_certificates(pair):
    """Whoever is not b of this cluster stays outside, with a line that says why; b is not disturbed."""
    pair.start()
    pair.load()
    d, ca = pair.dir, pair.ca
    guests = [
        (foreign(pair, f"{d}/f1"), "its certificate is not good: unable"),
        (foreign(pair, f"{d}/f2", ca=ca, expired=True), "certificate has expired mochila://west/node/b"),
        (foreign(pair, f"{d}/f3", uri="mochila://east/node/b", ca=ca), "of cluster east, not west"),
        (foreign(pair, f"{d}/f4", uri="mochila://west/operator/b", ca=ca), "is not a node's: mochila://west/operator/b"),
        (foreign(pair, f"{d}/f5", uri="mochila://west/node/z", ca=ca), "node z is not among cluster.peers"),
        (foreign(pair, f"{d}/f6", uri="https://b.example/", ca=ca), "is not a node's: https://b.example/"),
        ((), "did not return a certificate"),
    ]
    for files, why in guests:
        p = in_netns("b", HANDSHAKE, pair.wire["a"], *files)
        assert p.communicate(timeout=10)[0] == "out\n", why
        wait_for(lambda: why in pair.a.log(), 5, f"{why} in {pair.a.log()}")
        assert pair.a.log().count(why) == 1
    files = foreign(pair, f"{d}/f7", ca=ca)
    p = in_netns("b", HANDSHAKE, pair.wire["a"], *files, "1.2")
    assert p.communicate(timeout=10)[0] == "out\n"
    wait_for(lambda: "unsupported protocol" in pair.a.log(), 5, pair.a.log())
    pair.finish()
    assert "down" not in pair.a.log()


ROGUE = r"""
import socket, ssl, struct, sys, time
host, port = sys.argv[1].rsplit(":", 1)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
c.load_cert_chain(sys.argv[2], sys.argv[3])
SP = b"\0SP\0\0\x10\0\0"
def frame(n, body):
    return SP + b"\1" + struct.pack(">Q", n) + body
beat = b"\x0dmLnk\x10\x05"
for data in (frame(1 << 40, b"x" * 1000), frame((1 << 64) - 1, b""), frame(3 << 20, b"x" * 100000), frame(5, b"abcde"),
             frame(len(beat), beat), b"\0SP\0\0\x20\0\0", b"x" * 5000, b""):
    s = c.wrap_socket(socket.create_connection((host, int(port)), 5))
    s.settimeout(5)
    try:
        s.sendall(b"mochila0" + data)
        while s.recv(4096):
            pass
    except OSError:
        pass
    s.close()
s = c.wrap_socket(socket.create_connection((host, int(port)), 5))
s.sendall(b"mochila7")
s.close()
print("done", flush=True)
"""


def test_peer_that_sends_nonsense(pair):
    """Even with a good certificate: lengths of 2^40 and beyond, frames too large, malformed or out of turn."""
    pair.a.start()
    wait_for(lambda: "listening" in pair.a.log())
    p = in_netns("b", ROGUE, pair.wire["a"], f"{pair.dir}/pki-b/node.pem", f"{pair.dir}/pki-b/node.key")
    assert p.communicate(timeout=40)[0] == "done\n"
    for why in ("a malformed frame", "a frame before its greeting", "asks for a channel"):
        wait_for(lambda: why in pair.a.log(), 5, f"{why} in {pair.a.log()}")
    assert pair.a.process.poll() is None
    pair.b.start()
    pair.wait_up()
    pair.load()
    pair.finish()


def test_dialled_peer_with_wrong_certificate(pair):
    """Node a shows a certificate of another cluster with the same name: b says so, and does not speak."""
    cluster("init", "west", "--dir", f"{pair.dir}/other")
    shutil.rmtree(f"{pair.dir}/pki-a")
    pair.ca = f"{pair.dir}/other"
    pair.join("a")
    pair.a.start()
    wait_for(lambda: "listening" in pair.a.log())
    pair.b.start()
    wait_for(lambda: "peer a: no control channel: its certificate is not good" in pair.b.log(), 5, pair.b.log())
    wait_for(lambda: "refuses our certificate" in pair.a.log(), 5, pair.a.log())
    wait_for(lambda: pair.a.log().count("refused a connection") >= 1)
    assert not pair.a.all_up()
    assert pair.b.log().count("peer a: no control channel") == 1
    assert pair.a.log().count("refused a connection") == 1


def test_source_address(pair):
    """A lane's address is never the source, even if the kernel would choose it; another one is as told."""
    dialler, host = pair.b, pair.wire["b"].rsplit(":", 1)[0]
    good = dialler.config
    dialler.config = good.replace("address: 127.0.0.99, ehlo", f"address: {host}, ehlo").replace(
        f'listen: "{pair.wire["b"]}", peers', 'listen: "", peers')
    pair.a.start()
    wait_for(lambda: "listening" in pair.a.log())
    dialler.start()
    wait_for(lambda: f"{host} is a lane's address: set cluster.source to another" in dialler.log(), 5, dialler.log())
    assert not dialler.all_up()
    dialler.kill()
    if ROOT:
        ip("-n", NETNS["b"], "addr", "replace", "10.99.7.12/24", "dev", "eth0")
    source = "10.99.7.12" if ROOT else "127.0.0.12"
    dialler.config = dialler.config.replace("cluster: {name: west", f"cluster: {{name: west, source: {source}")
    dialler.start()
    pair.wait_up()
    ss = subprocess.run((["ip", "netns", "exec", NETNS["b"]] if ROOT else []) +
                        ["ss", "-H", "-tn", "dst", pair.wire["a"]], capture_output=True, text=True).stdout
    assert ss.count(f"{source}:") == 2, ss


def test_own_certificate_is_wrong(pair):
    """The certificate of another node: the process ends with one line that names file and reason."""
    bundle = f"{pair.dir}/short"
    cluster("issue", "b", "--dir", pair.ca, "--out", bundle, "--days", "20")
    cluster("join", bundle, "--dir", f"{pair.dir}/pki-b")
    pair.b.start()
    wait_for(lambda: re.search(r"node.pem ends in (19|20) days: issue a new one", pair.b.log()), 5, pair.b.log())
    pair.a.config = pair.a.config.replace("pki-a", "pki-b")
    pair.a.start()
    assert pair.a.process.wait(10) == 1
    assert "pki-b/node.pem: it is not for node a of cluster west, but for mochila://west/node/b" in pair.a.log()


def test_end_of_the_master(pair):
    pair.start()
    for node, end in ((pair.a, lambda: pair.a.process.send_signal(signal.SIGTERM)), (pair.b, pair.b.sock.close)):
        with node.lock:
            end()
            if node is pair.b:
                node.sock = None
        assert node.process.wait(10) == 0
    assert "told to end" in pair.a.log()
    assert "the master has ended" in pair.b.log()


def test_started_by_hand():
    p = subprocess.run([link_master.LINK], stdin=subprocess.DEVNULL, capture_output=True, text=True, close_fds=True)
    assert p.returncode == 2
    assert "is started by it" in p.stderr


def test_cluster_commands(tmp_path):
    """Files of mode 0600, nothing overwritten, and words that help."""
    ca, node = str(tmp_path / "ca"), str(tmp_path / "node")

    def refused(*args):
        p = subprocess.run([CLI, "cluster", *args], capture_output=True, text=True)
        assert p.returncode != 0
        return p.stderr

    assert "good until" in cluster("init", "west", "--dir", ca)
    assert "is there already" in refused("init", "west", "--dir", ca)
    assert "no name of a cluster" in refused("init", "West", "--dir", node)
    assert "--days is a number" in refused("init", "west", "--dir", node, "--days", "0")
    assert "cluster init" in refused("issue", "b", "--dir", str(tmp_path))
    bundle = str(tmp_path / "b.pem")
    assert "mochila://west/node/b" in cluster("issue", "b", "--dir", ca, "--out", bundle)
    assert "is there already" in refused("issue", "b", "--dir", ca, "--out", bundle)
    assert "no bundle" in refused("join", ca + "/ca.pem", "--dir", node)
    out = cluster("join", bundle, "--dir", node)
    assert "node: b" in out and "name: west" in out
    for path in (ca + "/ca.key", bundle, node + "/node.key", node + "/node.pem"):
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(node).st_mode & 0o777 == 0o700
    # A renewal replaces; another cluster's certificate does not.
    again, other = str(tmp_path / "b2.pem"), str(tmp_path / "other")
    before = open(node + "/node.pem").read()
    cluster("issue", "b", "--dir", ca, "--out", again, "--days", "3")
    cluster("join", again, "--dir", node)
    assert open(node + "/node.pem").read() != before
    cluster("init", "west", "--dir", other)
    cluster("issue", "b", "--dir", other, "--out", str(tmp_path / "b3.pem"))
    assert "another cluster" in refused("join", str(tmp_path / "b3.pem"), "--dir", node)
    openssl("verify", "-x509_strict", "-CAfile", ca + "/ca.pem", node + "/node.pem")
