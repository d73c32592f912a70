"""Lanes bound to network interfaces, and what a worker may still do: needs root for its own
network namespaces, two veth pairs between them.

    node namespace   eth0 10.98.1.1 ----- p0 10.98.1.2   net namespace
                     eth1 10.98.2.1 ----- p1 10.98.2.2   sink on 10.98.9.9 (lo)

The sink's address is routed through eth0; only a socket that is bound to eth1 leaves there.
"""
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from mochila_node import BIN, wait_for

NODE, NET = f"mo-node-{os.getpid()}", f"mo-net-{os.getpid()}"

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"),
                                reason="needs root and iproute2 for network namespaces")


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


def inside(namespace, *command, **kw):
    return subprocess.Popen(["ip", "netns", "exec", namespace, *command], **kw)


@pytest.fixture
def wires():
    try:
        for name in (NODE, NET):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for i in (0, 1):
            run("ip", "-n", NODE, "link", "add", f"eth{i}", "type", "veth", "peer", "name", f"p{i}",
                "netns", NET)
            run("ip", "-n", NODE, "addr", "add", f"10.98.{i + 1}.1/24", "dev", f"eth{i}")
            run("ip", "-n", NET, "addr", "add", f"10.98.{i + 1}.2/24", "dev", f"p{i}")
            run("ip", "-n", NODE, "link", "set", f"eth{i}", "up")
            run("ip", "-n", NET, "link", "set", f"p{i}", "up")
            run("ip", "netns", "exec", NET, "sh", "-c",
                f"echo 0 > /proc/sys/net/ipv4/conf/p{i}/rp_filter")
            run("ip", "-n", NODE, "route", "add", "10.98.9.9/32", "via", f"10.98.{i + 1}.2", "dev",
                f"eth{i}", "metric", str(100 + i))
        run("ip", "-n", NET, "addr", "add", "10.98.9.9/32", "dev", "lo")
        yield
    finally:
        for name in (NODE, NET):
            run("ip", "netns", "del", name, check=False)


def packets_in(port):
    shown = run("ip", "-n", NET, "-j", "-s", "link", "show", "dev", port).stdout
    return json.loads(shown)[0]["stats64"]["rx"]["packets"]


CONFIG = """
node: nic
hostname: mx.nic.test
workers: 2
user: nobody
spool: {dir}/spool
run: {dir}/run
log: {dir}/log
listen:
  - {{address: 127.0.0.1, port: 2525}}
relay_from: [127.0.0.0/8]
pools:
  first: {{lanes: [{{address: 10.98.1.1, ehlo: one.nic.test, nic: eth0}}]}}
  second: {{lanes: [{{address: 10.98.2.1, ehlo: two.nic.test, nic: eth1}}]}}
tenants:
  one: {{pool: first, from: [127.0.1.0/24]}}
  two: {{pool: second, from: [127.0.2.0/24]}}
routes:
  - {{domain: "*", via: "10.98.9.9:2525"}}
smtp: {{connections_per_ip: 0, connections_per_net: 0, accept_per_s_per_ip: 0}}
spool_options: {{segment: 8M, reserve: 0, spares: 1}}
dns: {{enabled: false}}
"""


class Bound:
    """A node in the node namespace, a sink in the other."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="mochila-nic-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        os.chmod(self.dir, 0o711)
        with open(f"{self.dir}/mochila.yaml", "w") as f:
            f.write(CONFIG.format(dir=self.dir))
        self.sink = inside(NET, f"{BIN}/mochila-bench", "sink", "--listen", "10.98.9.9:2525",
                           "--json", f"{self.dir}/sink.json", stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        self.node = inside(NODE, f"{BIN}/mochilad", "-f", f"{self.dir}/mochila.yaml",
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cli(self, *args):
        done = run(f"{BIN}/mochila", "--socket", f"{self.dir}/run/api.sock", *args, "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None

    def status(self):
        status = self.cli("status")
        workers = [c for c in (status or {}).get("children", []) if "worker" in c["name"]]
        ready = len(workers) == 2 and all(c["state"] == "ready" for c in workers)
        return status if ready else None

    def send(self, count):
        done = inside(NODE, f"{BIN}/mochila-bench", "source", "--to", "127.0.0.1:2525", "--count",
                      str(count), "--connections", "4", "--size", "10k", "--domains", "20",
                      "--source-addresses", "127.0.1.1,127.0.2.1", "--quiet", stdout=subprocess.DEVNULL,
                      stderr=subprocess.PIPE).wait(timeout=60)
        assert done == 0

    def close(self):
        for p in (self.node, self.sink):
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(timeout=20)
            except subprocess.TimeoutExpired:
                p.kill()
        result = None
        if os.path.exists(f"{self.dir}/sink.json"):
            with open(f"{self.dir}/sink.json") as f:
                result = json.load(f)
        shutil.rmtree(self.dir, ignore_errors=True)
        return result


@pytest.fixture
def bound(wires):
    b = Bound()
    try:
        wait_for("both workers to serve", b.status)
        yield b
    finally:
        b.close()


def test_lanes_leave_through_their_own_interface(bound):
    before = [packets_in("p0"), packets_in("p1")]
    bound.send(400)
    wait_for("the queue to be empty", lambda: (bound.cli("ledger") or {}).get("delivered") == 400)
    through = [packets_in("p0") - before[0], packets_in("p1") - before[1]]
    result = bound.close()
    assert result["unique"] == 400
    assert set(result["sources"]) == {"10.98.1.1", "10.98.2.1"}
    # Each lane sent about half of 400 bodies of 10 KB on its own wire; without the bond all take eth0.
    assert min(through) > 100, through


def test_lanes_of_a_nic_live_on_its_worker(bound):
    lanes = {one["address"]: one for one in bound.status()["lanes"]}
    assert lanes["10.98.1.1"]["worker"] != lanes["10.98.2.1"]["worker"]


def process_status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def test_workers_have_dropped_every_right(bound):
    nobody = pwd.getpwnam("nobody").pw_uid
    workers = [c for c in bound.status()["children"] if "worker" in c["name"]]
    for worker in workers:
        status = process_status(worker["pid"])
        assert status["Uid"].split() == [str(nobody)] * 4
        assert status["Groups"].split() == []
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"
