"""mochila-netd moves addresses between two hosts of one segment: needs root for its own network
namespaces.

    a eth0 10.97.0.1 --+
    b eth0 10.97.0.2 --+-- bridge (namespace net)   net br0 10.97.0.9: the neighbour, and the remote
    10.97.0.11.., fd97::11..: lanes                  side of SMTP connections
"""
import ctypes
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time

import pytest

from mochila_node import BIN, wait_for
from netd_wire import Netd, held

A, B, NET = (f"mo-{name}-{os.getpid()}" for name in ("nda", "ndb", "ndn"))
HOSTS = {A: ("10.97.0.1", "fd97::1"), B: ("10.97.0.2", "fd97::2")}
LANE4, LANE6 = "10.97.0.11", "fd97::11"
EVEN, ODD = (20000, 39999), (40000, 59999)


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


def why_not():
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not shutil.which("ip"):
        return "needs iproute2"
    probe = f"mo-probe-{os.getpid()}"
    made = run("ip", "netns", "add", probe, check=False)
    if made.returncode != 0:
        return f"no network namespaces here: {made.stderr.strip()}"
    try:
        for kind in ("bridge", "veth"):
            made = run("ip", "-n", probe, "link", "add", f"t{kind}", "type", kind, check=False)
            if made.returncode != 0:
                return f"this kernel has no {kind} device: {made.stderr.strip()}"
    finally:
        run("ip", "netns", "del", probe, check=False)
    return ""


REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def segment():
    try:
        for name in (A, B, NET):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", NET, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", NET, "link", "set", "br0", "up")
        for name, (v4, v6) in HOSTS.items():
            port = "p" + ("a" if name == A else "b")
            run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", NET)
            run("ip", "-n", NET, "link", "set", port, "master", "br0", "up")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "addr", "add", f"{v4}/24", "dev", "eth0")
            run("ip", "-n", name, "addr", "add", f"{v6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", NET, "addr", "add", "10.97.0.9/24", "dev", "br0")
        run("ip", "-n", NET, "addr", "add", "fd97::9/64", "dev", "br0", "nodad")
        yield
    finally:
        for name in (A, B, NET):
            run("ip", "netns", "del", name, check=False)


@pytest.fixture
def hosts(segment, tmp_path):
    """start(namespace, ...) gives a Netd; all are ended afterwards."""
    running = []

    def start(namespace, **kw):
        n = Netd(namespace, str(tmp_path / f"netd-{len(running)}.log"), **kw)
        running.append(n)
        return n

    yield start
    for n in running:
        if n.process.poll() is None:
            n.kill()


def addresses(namespace):
    """{(address, interface): entry} of a host."""
    out = {}
    for link in json.loads(run("ip", "-n", namespace, "-j", "addr", "show").stdout):
        for a in link["addr_info"]:
            out[a["local"], link["ifname"]] = a
    return out


def mac(namespace, interface="eth0"):
    return json.loads(run("ip", "-n", namespace, "-j", "link", "show", interface).stdout)[0]["address"]


def neighbour(address):
    """The MAC that the neighbour would send to."""
    for n in json.loads(run("ip", "-n", NET, "-j", "neigh", "show", address).stdout or "[]"):
        return n.get("lladdr")


def within(namespace, program, *args):
    return run("ip", "netns", "exec", namespace, "/usr/bin/python3", "-c", program, *args)


def touch(address):
    """The neighbour speaks to the address, so that it has an entry for it."""
    within(NET, "import socket,sys\n"
           "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
           "s.sendto(b'x', (sys.argv[1], 9))", address)
    wait_for(f"an entry for {address}", lambda: neighbour(address))


def enter(descriptor):
    # os.setns came with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) < 0:
        raise OSError(ctypes.get_errno(), "setns")


def in_namespace(namespace, make):
    """Sockets made in the namespace stay there."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        enter(other)
        return make()
    finally:
        enter(own)
        os.close(own)
        os.close(other)


def connect(namespace, source, port, remote):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET

    def make():
        s = socket.socket(family)
        s.settimeout(10)
        s.bind((source, port))
        s.connect(remote)
        return s

    return in_namespace(namespace, make)


def listener(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def make():
        s = socket.socket(family)
        s.settimeout(10)
        s.bind((address, 0))
        s.listen()
        return s

    return in_namespace(NET, make)


def say(a, b, text):
    a.sendall(text)
    got = b""
    while len(got) < len(text):
        part = b.recv(100)
        assert part, "the connection was closed"
        got += part
    assert got == text


def test_move(hosts):
    a, b = hosts(A), hosts(B)
    run("ip", "-n", B, "addr", "add", "10.97.0.77/32", "dev", "eth0")
    before = addresses(B)
    for lane, address in ((1, LANE4), (2, LANE6)):
        assert a.ask("prepare", lane, address, 1, probe_ms=20) == ("ok", "")
        assert a.ask("acquire", lane, address, 1) == ("ok", "")
        assert a.ask("acquire", lane, address, 1) == ("ok", "")
        touch(address)
        assert neighbour(address) == mac(A)
        assert b.ask("prepare", lane, address, 2, probe_ms=1000,
                     peer=HOSTS[A][":" in address]) == ("ok", "")
        assert a.ask("verify", lane, address, 1, probe_ms=50) == ("ok", "")
        assert a.ask("release", lane, address, 1) == ("ok", "")
        assert b.ask("acquire", lane, address, 2) == ("ok", "")
        # The entry changed by the announcement alone: nothing was asked.
        wait_for("the neighbour believing the announcement", lambda: neighbour(address) == mac(B))
        assert a.ask("release", lane, address, 1) == ("ok", "")
        assert a.ask("verify", lane, address, 1)[0] == "failed"
        assert b.ask("verify", lane, address, 2, probe_ms=50) == ("ok", "")
        assert b.ask("acquire", lane, address, 1) == ("failed", "this epoch of the lane is over")
        entry = addresses(B)[address, "eth0"]
        assert 0 < entry["valid_life_time"] <= 10 and entry["prefixlen"] in (32, 128)
        assert not any(held_by == address for held_by, _ in addresses(A))
    assert a.terminate() == 0 and b.terminate() == 0
    assert addresses(B).keys() == before.keys(), "only ours left"


@pytest.mark.parametrize("lane,remote,host", [(LANE4, "10.97.0.9", HOSTS[A][0]),
                                              (LANE6, "fd97::9", HOSTS[A][1])])
def test_tail(hosts, lane, remote, host):
    """A connection that was open before the move goes on after it, while B makes new ones."""
    a, b = hosts(A), hosts(B)
    if "not forwarded" in b.log():
        pytest.skip("this kernel has no nf_tables netdev ingress with fwd: tails cannot be forwarded")
    server = listener(remote)
    assert a.ask("acquire", 1, lane, 1) == ("ok", "")
    old = connect(A, lane, ODD[0] + 5, server.getsockname()[:2])
    old_peer = server.accept()[0]
    say(old, old_peer, b"before")
    assert b.ask("prepare", 1, lane, 2, peer=host, ports=ODD, tail=True, probe_ms=300) == ("ok", "")
    assert a.ask("release", 1, lane, 1, tail=True) == ("ok", "")
    assert (lane, "lo") in addresses(A) and (lane, "eth0") not in addresses(A)
    # An address on lo is not answered for: without a peer to excuse, nobody is heard.
    assert b.ask("prepare", 1, lane, 2, probe_ms=300) == ("ok", "")
    assert b.ask("acquire", 1, lane, 2, peer=host, ports=ODD) == ("ok", "")
    wait_for("the neighbour believing the announcement", lambda: neighbour(lane) == mac(B))
    new = connect(B, lane, EVEN[0] + 5, server.getsockname()[:2])
    new_peer = server.accept()[0]
    say(new_peer, new, b"220 from b")
    say(old_peer, old, b"250 to a")
    say(old, old_peer, b"QUIT")
    # A restart of b's netd, even a violent one, keeps the tail.
    b.kill()
    say(old_peer, old, b"221 while nobody is there")
    b = hosts(B, holding=[held(1, lane, 2, peer=host, ports=ODD)])
    assert b.ready["dropped"] == 0
    say(old_peer, old, b"221 to a")
    # Without the rule, b does not know that connection.
    assert b.ask("end_tail", 1, lane, 2) == ("ok", "")
    assert b.ask("end_tail", 1, lane, 2) == ("ok", "")
    old_peer.sendall(b"nobody")
    old.settimeout(0.3)
    with pytest.raises(OSError):
        old.recv(10)
    assert a.ask("end_tail", 1, lane, 2) == ("ok", "")
    assert (lane, "lo") not in addresses(A)
    say(new, new_peer, b"still there")
    for s in (old, new, old_peer, new_peer, server):
        s.close()


def test_move_back_with_open_tail(hosts):
    """Abort: the address comes back to the host that still has its tail."""
    a = hosts(A)
    server = listener("10.97.0.9")
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")
    s = connect(A, LANE4, ODD[0] + 6, server.getsockname())
    peer = server.accept()[0]
    assert a.ask("release", 1, LANE4, 1, tail=True) == ("ok", "")
    assert a.ask("acquire", 1, LANE4, 2) == ("ok", "")
    assert (LANE4, "eth0") in addresses(A) and (LANE4, "lo") not in addresses(A)
    say(s, peer, b"on")
    say(peer, s, b"and on")
    for one in (s, peer, server):
        one.close()


def test_in_use(hosts):
    a, b = hosts(A), hosts(B)
    for lane, address, own in ((1, LANE4, 0), (2, LANE6, 1)):
        assert a.ask("acquire", lane, address, 1) == ("ok", "")
        refused = ("failed", f"{address} is in use by {mac(A)}")
        assert b.ask("acquire", lane, address, 2, probe_ms=2000) == refused
        assert b.ask("prepare", lane, address, 2, probe_ms=2000) == refused
        # The peer that holds it is no obstacle; anybody else is.
        peer = HOSTS[A][own]
        assert b.ask("prepare", lane, address, 2, probe_ms=200, peer=peer) == ("ok", "")
        bridge = ("10.97.0.9", "fd97::9")[own]
        assert b.ask("prepare", lane, address, 2, probe_ms=1000, peer=bridge) == refused
        assert not any(ip == address for ip, _ in addresses(B))
    # Taken all the same, both hear of it.
    assert b.ask("acquire", 1, LANE4, 2) == ("ok", "")
    a.wait(lambda: a.notices, "notice")
    assert a.notices[0] == ("clash", 1, f"{LANE4} is in use by {mac(B)}")
    assert b.ask("verify", 1, LANE4, 2, probe_ms=1000)[0] == "failed"


def test_foreign_address(hosts):
    """An address that somebody else put there is neither taken, nor removed, nor given a lifetime."""
    a = hosts(A)
    for lane, address, bits in ((1, LANE4, 32), (2, LANE6, 128)):
        run("ip", "-n", A, "addr", "add", f"{address}/{bits}", "dev", "eth0")
        for action in ("prepare", "acquire"):
            assert a.ask(action, lane, address, 1) == \
                ("failed", "the address is on interface eth0 and is not ours")
        assert a.ask("release", lane, address, 1) == ("ok", "")
        assert a.ask("end_tail", lane, address, 1) == ("ok", "")
    a.terminate()
    for address in (LANE4, LANE6):
        assert addresses(A)[address, "eth0"]["valid_life_time"] > 1000000


def test_kernel_fence(hosts):
    """Killed, nothing renews the addresses: the kernel removes them, and nothing else."""
    a = hosts(A)
    run("ip", "-n", A, "addr", "add", "10.97.0.88/32", "dev", "eth0")
    for lane, address in ((1, LANE4), (2, LANE6)):
        assert a.ask("acquire", lane, address, 1) == ("ok", "")
    # Longer than the lifetime: it is renewed.
    first = time.monotonic()
    while time.monotonic() - first < 11:
        a.read(0.2)
        assert {(LANE4, "eth0"), (LANE6, "eth0")} <= addresses(A).keys(), a.log()
    assert not a.notices
    a.kill()
    wait_for("the kernel removing the addresses",
             lambda: not {(LANE4, "eth0"), (LANE6, "eth0")} & addresses(A).keys())
    assert ("10.97.0.88", "eth0") in addresses(A) and (HOSTS[A][0], "eth0") in addresses(A)


def test_restart(hosts):
    """A successor drops what it may not hold before it says READY, and keeps the rest."""
    a = hosts(A)
    for lane, address in ((1, LANE4), (2, LANE6), (3, "10.97.0.12"), (4, "10.97.0.13")):
        assert a.ask("acquire", lane, address, 1) == ("ok", "")
    assert a.ask("release", 4, "10.97.0.13", 1, tail=True) == ("ok", "")
    a.kill()
    a = hosts(A, holding=[held(1, LANE4, 1), held(4, "10.97.0.13", 1, tail=True),
                          held(5, "10.97.0.14", 3)])
    assert a.ready["dropped"] == 2
    mine = {ip for ip, _ in addresses(A)} - set(HOSTS[A])
    assert {LANE4, "10.97.0.13"} <= mine and not {LANE6, "10.97.0.12", "10.97.0.14"} & mine
    assert a.ask("verify", 1, LANE4, 1) == ("ok", "")
    assert a.ask("verify", 5, "10.97.0.14", 3)[0] == "failed"
    assert a.ask("acquire", 5, "10.97.0.14", 3) == ("ok", "")
    assert a.terminate() == 0
    mine = {ip for ip, _ in addresses(A)}
    assert not {LANE4, "10.97.0.13", "10.97.0.14"} & mine, "an orderly stop leaves nothing"


def test_gone(hosts):
    a = hosts(A)
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")
    run("ip", "-n", A, "addr", "del", f"{LANE4}/32", "dev", "eth0")
    a.wait(lambda: a.notices, "notice")
    assert a.notices == [("gone", 1, f"{LANE4} is not on eth0 any more")]
    assert a.ask("verify", 1, LANE4, 1) == ("failed", "this host does not hold the lane")
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")


def test_refusals(hosts):
    a = hosts(A)
    assert a.ask("prepare", 1, LANE4, 1, interface="nosuch") == \
        ("failed", "there is no interface nosuch")
    assert a.ask("prepare", 1, LANE4, 1, interface="lo") == \
        ("failed", "interface lo: is not Ethernet")
    assert a.ask("acquire", 1, LANE4, 1, interface="") == \
        ("failed", "driver l2 needs the lane's interface")
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")
    assert a.ask("acquire", 2, LANE4, 1)[0] == "failed"
    assert a.ask("acquire", 1, "10.97.0.12", 1)[0] == "failed"
    run("ip", "-n", A, "link", "set", "eth0", "down")
    assert a.ask("verify", 1, LANE4, 1) == ("failed", "interface eth0: is down")


def test_burst(hosts):
    """Pools of 768 lanes at once, by a master that reads the answers late."""
    a = hosts(A)
    pool = [f"10.97.{1 + i // 256}.{i % 256}" for i in range(768)]
    ids = [a.send("acquire", i + 1, address, 1) for i, address in enumerate(pool)]
    assert {a.answer(i)[0] for i in ids} == {"ok"}
    assert set(pool) <= {ip for ip, _ in addresses(A)}
    ids = [a.send("release", i + 1, address, 1) for i, address in enumerate(pool)]
    assert {a.answer(i)[0] for i in ids} == {"ok"}
    assert not set(pool) & {ip for ip, _ in addresses(A)}


def test_rights(hosts):
    """Another user, and two capabilities: nothing more can be had back."""
    a = hosts(A, uid=65534, gid=65534)
    with open(f"/proc/{a.process.pid}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    two = "%016x" % (1 << 12 | 1 << 13)
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == two
    assert status["Uid"].split() == ["65534"] * 4 and status["NoNewPrivs"] == "1"
    assert a.ask("prepare", 1, LANE4, 1, probe_ms=20) == ("ok", "")
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")
    assert a.ask("acquire", 2, LANE6, 1) == ("ok", "")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def write_hook(path, text, mode=0o755):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return str(path)


def test_hook(hosts, tmp_path):
    told = tmp_path / "told"
    a = hosts(A, hook_ms=700, hook=write_hook(tmp_path / "hook", f"""
case $LANE in
1) env | sort > {told}; echo "$0 $1" >> {told} ;;
2) exit 75 ;;
3) echo no such cloud >&2; exit 3 ;;
4) sleep 60 & echo $! > {told}; wait ;;
5) kill -9 $$ ;;
6) [ "$ACTION" = acquire ] || exit 0; ip addr add $ADDRESS/32 dev eth0 ;;
esac
"""))

    def acquire(lane):
        return a.ask("acquire", lane, f"10.97.0.{20 + lane}", 7, driver="exec", interface="")

    assert acquire(1) == ("ok", "")
    lines = told.read_text().splitlines()
    assert lines[-1] == f"{tmp_path}/hook acquire"
    for line in ("LANE=1", "ADDRESS=10.97.0.21", "EPOCH=7", "FROM=a", "TO=b", "POOL=pool",
                 "ACTION=acquire"):
        assert line in lines
    assert not any(re.match("(HOME|USER|MOCHILA)", line) for line in lines)
    assert acquire(2) == ("retry", "the hook asks for a retry")
    assert acquire(3) == ("failed", "the hook ended with status 3")
    assert "no such cloud" in a.log()
    assert acquire(4) == ("retry", "not done within 700 ms")
    sleeper = int(told.read_text())
    wait_for("the hook's own child killed", lambda: not alive(sleeper))
    assert acquire(5) == ("failed", "the hook was ended by signal 9")
    assert acquire(6) == ("ok", "") and ("10.97.0.26", "eth0") in addresses(A)
    # One that waits holds up nobody else, and not its own lane's second request for long.
    slow = a.send("acquire", 4, "10.97.0.24", 7, driver="exec", interface="")
    assert a.ask("verify", 4, "10.97.0.24", 7, driver="exec") == \
        ("retry", "another request of the lane is under way")
    assert a.ask("acquire", 9, "10.97.0.29", 7, driver="none") == ("ok", "")
    assert a.ask("acquire", 10, LANE4, 7) == ("ok", "")
    assert slow not in a.answers
    assert a.answer(slow)[0] == "retry"


def test_hook_of_nobody(hosts, tmp_path):
    """With another user the hook still may do what netd may; a file that others may write is not run."""
    hook = write_hook(tmp_path / "hook", "ip addr add $ADDRESS/32 dev eth0 || exit 9\n")
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IXGRP)
    tmp_path.chmod(0o755)
    a = hosts(A, hook=hook, uid=65534, gid=65534)
    assert a.ask("acquire", 1, "10.97.0.31", 1, driver="exec") == ("ok", "")
    assert ("10.97.0.31", "eth0") in addresses(A)
    os.chmod(hook, 0o777)
    result, reason = a.ask("acquire", 2, "10.97.0.32", 1, driver="exec")
    assert result == "failed" and "others than its owner may write it" in reason


@pytest.mark.parametrize("frame", [b"", b"\xff" * 20, b"\x12\x02\x08\x01"])
def test_malformed_frame(hosts, frame):
    """Bytes that are no frame end the process; the addresses stay for whoever comes next."""
    a = hosts(A)
    assert a.ask("acquire", 1, LANE4, 1) == ("ok", "")
    if frame:
        a.control.send(frame)
    else:
        a.control.close()
    assert a.process.wait(20) == (1 if frame else 0)
    assert (LANE4, "eth0") in addresses(A)


def test_alone(tmp_path):
    """Started by hand it says what it is."""
    out = run(os.path.join(BIN, "mochila-netd"), check=False)
    assert out.returncode == 2 and "is started by it" in out.stderr
