"""mochilad with real processes whose behaviour the tests choose (fake_child.py)."""
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("MOCHILA_BIN", os.path.join(ROOT, "build", "debug")))
MOCHILAD = os.path.join(BUILD, "mochilad")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


class Node:
    def __init__(self):
        # Not pytest's tmp_path: the spool must not lie in memory.
        self.dir = tempfile.mkdtemp(prefix="mochila-master-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.port = free_port()
        self.process = None
        self.queries = 0
        self.options = []
        self.config(workers=2)
        for kind in ("worker", "api"):
            self.script(kind)
        os.mkfifo(f"{self.dir}/queries")
        self.fifo = os.open(f"{self.dir}/queries", os.O_RDWR)

    def script(self, kind):
        path = f"{self.dir}/{kind}"
        with open(path, "w") as f:
            f.write(f"#!/bin/sh\nexec /usr/bin/python3 {HERE}/fake_child.py {self.dir} {kind}\n")
        os.chmod(path, 0o755)

    def config(self, workers=2, lanes=("127.0.0.11", "127.0.0.12", "127.0.0.13"), port=None, more=""):
        listed = "".join(f"      - {{address: {a}, ehlo: a.example}}\n" for a in lanes)
        with open(f"{self.dir}/mochila.yaml", "w") as f:
            f.write(f"node: t\nhostname: t.example\nworkers: {workers}\n"
                    f"spool: {self.dir}/spool\nrun: {self.dir}/run\nlog: {self.dir}/log\n"
                    f"listen:\n  - {{address: 127.0.0.1, port: {port or self.port}, role: relay}}\n"
                    f"relay_from: [127.0.0.0/8]\npools:\n  main:\n    lanes:\n{listed}"
                    f"tenants:\n  acme: {{pool: main}}\n{more}")

    def mode(self, what, kind="worker"):
        """Replaced at once, so that no process reads half of it."""
        path = f"{self.dir}/{kind}.mode"
        with open(path + ".new", "w") as f:
            f.write(what)
        os.rename(path + ".new", path)

    def start(self, *options, env=None):
        self.process = subprocess.Popen(
            [MOCHILAD, "-f", f"{self.dir}/mochila.yaml", "--worker", f"{self.dir}/worker",
             "--api", f"{self.dir}/api", *self.options, *options],
            stderr=subprocess.PIPE, env=env, text=True)
        return self

    def run(self, *options):
        """A start that is expected to fail: (status, text)."""
        self.start(*options)
        _, text = self.process.communicate(timeout=20)
        return self.process.returncode, text

    def seen(self, kind="worker", **match):
        try:
            with open(f"{self.dir}/{kind}.seen") as f:
                all_seen = [json.loads(line) for line in f if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [s for s in all_seen if all(s.get(k) == v for k, v in match.items())]

    def wait_seen(self, count, kind="worker", seconds=10, **match):
        def enough():
            found = self.seen(kind, **match)
            return found if len(found) >= count else None
        return wait_for(f"{count} x {match} of {kind}", enough, seconds)

    def log(self):
        try:
            with open(f"{self.dir}/log/mochila.log") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def wait_log(self, text, seconds=10):
        return wait_for(f'"{text}" in the log', lambda: text in self.log(), seconds)

    def ask(self, verb, *args):
        """Sends a query without waiting; returns its number."""
        self.queries += 1
        line = "\t".join([str(self.queries), verb, *args]) + "\n"
        os.write(self.fifo, line.encode())
        return self.queries

    def answer(self, verb, *args, seconds=10):
        """(status, object) of the master's own answer."""
        number = self.ask(verb, *args)
        pieces = self.wait_answer(number, seconds)
        return pieces[-1]["status"], json.loads("".join(p["body"] for p in pieces))

    def wait_answer(self, number, seconds=10):
        def whole():
            pieces = self.seen("api", event="ANSWER", id=number)
            if any(p["last"] and p["slot"] is None for p in pieces):
                return pieces
            return None
        return wait_for(f"answer {number}", whole, seconds)

    def up(self, workers=2):
        self.wait_seen(workers, event="recovered")
        self.wait_seen(1, "api", event="start")
        wait_for("all recovered", lambda: self.answer("status")[1]["state"] == "running")
        return self

    def stop(self, signum=signal.SIGTERM, seconds=15):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.communicate(timeout=seconds)
        status, self.process = self.process.returncode, None
        return status

    def close(self):
        pids = {s["pid"] for kind in ("worker", "api") for s in self.seen(kind, event="start")}
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        left = [p for p in pids if alive(p)]
        for pid in left:
            try:
                wait_for(f"{pid} to leave", lambda p=pid: not alive(p), 5)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
        os.close(self.fifo)
        shutil.rmtree(self.dir)


def alive(pid):
    """Alive and one of ours: numbers are used again."""
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return "fake_child.py" in f.read()
    except OSError:
        return False


@pytest.fixture
def node():
    n = Node()
    yield n
    n.close()


@pytest.fixture(scope="session")
def page_layout():
    """Where the counters page has what, from the header itself."""
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/l.c", "w") as f:
            f.write('#include "proto/stats.h"\n#include <stdio.h>\nint main(void){printf('
                    '"{\\"bytes\\":%zu,\\"pid\\":%zu,\\"marker\\":%zu,\\"heartbeat\\":%zu}",'
                    "sizeof(struct stats_page), offsetof(struct stats_page, pid),"
                    "offsetof(struct stats_page, marker), offsetof(struct stats_page, heartbeat_ns));}\n")
        subprocess.run(["cc", "-I", ROOT, "-o", f"{d}/l", f"{d}/l.c"], check=True)
        return subprocess.run([f"{d}/l"], check=True, capture_output=True, text=True).stdout


def gaps(starts):
    times = [s["t"] for s in starts]
    return [b - a for a, b in zip(times, times[1:])]


def assert_backoff(node, waits, gap_list, lifetime):
    """The master announces these waits, and keeps them; a busy machine makes them longer."""
    announced = [int(n) for n in re.findall(r"started again in (\d+) ms", node.log())]
    assert announced[:len(waits)] == waits
    for wait, gap in zip(waits, gap_list):
        assert -0.35 < gap - lifetime - wait / 1000 < 10, gap_list


# --- start


def test_start_tells_all(node):
    node.start().up()
    starts = sorted(node.seen(event="start"), key=lambda s: s["slot"])
    assert [s["slot"] for s in starts] == [0, 1]
    assert [s["shards"] for s in starts] == [[0], [1]]
    assert len({s["incarnation"] for s in starts}) == 2
    for s in starts:
        assert (s["boot"], s["workers"], s["generation"], s["held"]) == (1, 2, 1, 0)
        assert sorted(lane["lane"] for lane in s["lanes"]) == [1, 2, 3]
        assert sorted(lane["shard"] for lane in s["lanes"]) == [0, 0, 1]
        assert all(lane["worker"] == lane["shard"] for lane in s["lanes"])
        assert s["listeners"] == [0] and s["sockets"] == [node.port] and s["fds"] == 4
        assert s["config"] == open(f"{node.dir}/mochila.yaml").read()
        assert s["name"] == f"{node.dir}/mochila.yaml"
        assert set(s["env"]) <= {"PATH", "TZ", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                                 "LSAN_OPTIONS", "PWD", "_", "SHLVL", "OLDPWD", "LC_CTYPE"}
        # 0..4, the four passed ones, and the directory that was listed.
        assert len(s["open_fds"]) == 5 + 4 + 1
        assert not s["sigmask"]
    api, = node.seen("api", event="start")
    assert api["fds"] == 3 and len(api["lanes"]) == 3
    assert node.stop() == 0
    assert len(node.seen(event="leaves")) == 2


def test_boot_counts_and_lanes_stay(node):
    for boot in (1, 2, 3):
        node.start().up()
        assert node.stop() == 0
        assert node.seen(event="start")[-1]["boot"] == boot
        # The order in the file changes, and a lane comes in front.
        node.config(lanes=["127.0.0.13", "127.0.0.12", "127.0.0.11"][:4 - boot] + ["127.0.0.20"])
        os.rename(f"{node.dir}/worker.seen", f"{node.dir}/worker.seen.{boot}")
        node.seen_before = node.seen
    with open(f"{node.dir}/worker.seen.3") as f:
        last = json.loads(f.readline())
    places = {bytes.fromhex(lane["address"])[-1]: lane for lane in last["lanes"]}
    assert {a: p["lane"] for a, p in places.items()} == {11: 1, 12: 2, 13: 3, 20: 4}
    with open(f"{node.dir}/worker.seen.1") as f:
        first = {bytes.fromhex(lane["address"])[-1]: lane for lane in json.loads(f.readline())["lanes"]}
    assert all(first[a]["shard"] == places[a]["shard"] for a in first)


def test_fewer_workers_adopt_shards(node):
    node.config(workers=4)
    node.start().up(4)
    assert node.stop() == 0
    node.config(workers=2)
    os.remove(f"{node.dir}/worker.seen")
    node.start().up(2)
    starts = sorted(node.seen(event="start"), key=lambda s: s["slot"])
    # Three lanes were placed in shards 0, 1, 2.
    assert [s["shards"] for s in starts] == [[0, 2], [1]]
    assert {lane["shard"]: lane["worker"] for lane in starts[0]["lanes"]} == {0: 0, 1: 1, 2: 0}


def test_second_master_is_refused(node):
    node.start().up()
    status = subprocess.run([MOCHILAD, "-f", f"{node.dir}/mochila.yaml"], capture_output=True,
                            text=True, timeout=10)
    assert status.returncode == 69
    assert str(node.process.pid) in status.stderr and "run directory" in status.stderr
    # The same spool with another run directory.
    status = subprocess.run([MOCHILAD, "-f", f"{node.dir}/mochila.yaml", "--set",
                             f"run={node.dir}/run2"], capture_output=True, text=True, timeout=10)
    assert status.returncode == 69 and "spool directory" in status.stderr
    boots = sqlite3.connect(f"{node.dir}/spool/state.db").execute("SELECT boot FROM node").fetchall()
    assert boots == [(1,)]


def test_wrong_configuration(node):
    with open(f"{node.dir}/mochila.yaml", "a") as f:
        f.write("smtp:\n  drain: soon\n")
    status, text = node.run()
    assert status == 78 and "mochila.yaml:" in text and "smtp.drain" in text
    assert not os.path.exists(f"{node.dir}/spool")
    status, text = node.run("-n")
    assert status == 78
    node.config()
    assert node.run("-n")[0] == 0
    status, text = node.run("--no-such-thing")
    assert status == 64 and "--no-such-thing" in text


def test_set_reaches_the_children(node):
    node.start("--set", "workers=1", "--set", "smtp.drain=7s").up(1)
    start, = node.seen(event="start")
    assert start["workers"] == 1 and "drain: 7" in start["config"]
    node.process.send_signal(signal.SIGTERM)
    assert node.wait_seen(1, event="DRAIN")[0]["seconds"] == 7


def test_volatile_spool_is_refused(node):
    memory = tempfile.mkdtemp(dir="/dev/shm")
    try:
        status, text = node.run("--set", f"spool={memory}/spool")
        assert status == 73 and "--allow-volatile-spool" in text and "tmpfs" in text
        node.start("--set", f"spool={memory}/spool", "--allow-volatile-spool").up()
    finally:
        node.stop()
        shutil.rmtree(memory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start children that become another user")
def test_directories_of_another_user(node):
    """The workers' user owns the shards, and cannot touch what is the master's."""
    os.chmod(node.dir, 0o755)
    node.start("--set", "user=nobody").up()
    def of(path):
        st = os.stat(f"{node.dir}/{path}")
        return pwd.getpwuid(st.st_uid).pw_name, st.st_mode & 0o777
    assert of("spool") == ("root", 0o711)
    assert of("spool/state.db") == ("root", 0o600)
    assert of("spool/shard-0") == of("spool/shard-1") == ("nobody", 0o700)
    assert of("run") == ("nobody", 0o755)
    assert of("log/events-0.jsonl") == ("root", 0o640)
    node.stop()
    status, text = node.run("--set", "user=no-such-user")
    assert status == 73 and "no-such-user" in text and "useradd" in text


def test_port_in_use(node):
    with socket.socket() as s:
        s.bind(("127.0.0.1", node.port))
        s.listen()
        status, text = node.run()
        assert status == 69 and f"127.0.0.1:{node.port}" in text and "another program" in text


def test_program_that_cannot_be_executed(node):
    os.remove(f"{node.dir}/worker")
    node.start()
    node.wait_log("could not be executed")
    assert node.stop() == 0


def test_notifies_the_manager(node):
    path = f"{node.dir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(10)
        node.start(env={**os.environ, "NOTIFY_SOCKET": path})
        assert s.recv(100) == b"READY=1"
        assert len(node.seen(event="start")) == 2
        node.stop()
        assert s.recv(100) == b"STOPPING=1"


# --- supervision


def test_never_ready(node):
    node.mode("never-ready")
    node.start("--ready-ms", "400", "--set", "workers=1")
    starts = node.wait_seen(5, event="start")
    assert_backoff(node, [100, 200, 400, 800], gaps(starts), 0.4)
    assert "does not become READY" in node.log()


def test_dies_before_ready(node):
    node.mode("dies-before-ready")
    node.start("--set", "workers=1")
    starts = node.wait_seen(6, event="start", seconds=20)
    assert_backoff(node, [100, 200, 400, 800, 1600], gaps(starts), 0.15)
    assert "exit status 3" in node.log()


def test_sibling_lives_on(node):
    node.start().up()
    pids = {s["slot"]: s["pid"] for s in node.seen(event="start")}
    node.mode("dies-before-ready")
    os.kill(pids[0], signal.SIGSEGV)
    node.wait_seen(5, event="start")
    assert alive(pids[1])
    node.mode("good")
    node.wait_seen(3, event="recovered")
    assert alive(pids[1])
    assert [s["pid"] for s in node.seen(event="start", slot=1)] == [pids[1]]


@pytest.mark.parametrize("how", ["bad-frame-early", "wrong-pid", "wrong-version", "bad-frame",
                                 "wrong-frame", "sends-descriptor"])
def test_malformed_costs_its_life(node, how):
    node.mode(how)
    node.start("--set", "workers=1")
    starts = node.wait_seen(3, event="start")
    assert not alive(starts[0]["pid"])
    assert "signal 9" in node.log()
    node.mode("good")
    node.up(1)
    assert node.stop() == 0


def test_closed_descriptor(node):
    node.mode("closes-control")
    node.start("--set", "workers=1")
    first, second = node.wait_seen(2, event="start")[:2]
    assert not alive(first["pid"])
    assert 1.5 < second["t"] - first["t"] < 5


def test_dies_after_ready(node):
    node.mode("dies-after-ready")
    node.start("--set", "workers=1")
    found = gaps(node.wait_seen(6, event="start", seconds=20))
    assert found[0] < 0.5
    assert_backoff(node, [100, 200, 400, 800], found[1:], 0.15)


def test_killed_worker_is_back_at_once(node):
    node.start().up()
    for i in range(1, 3):
        start = node.seen(event="start", slot=0)[-1]
        os.kill(start["pid"], signal.SIGKILL)
        killed = time.monotonic()
        back = node.wait_seen(i + 1, event="recovered", slot=0)[-1]
        assert back["t"] - killed < 1
    status, s = node.answer("status")
    child, = [c for c in s["children"] if c.get("slot") == 0]
    assert status == 200 and child["restarts"] == 2 and "signal 9" in child["last_exit"]


def test_listeners_wait_for_the_worker(node):
    """Short absence: connections queue. Long absence: the port is closed rather than a black hole."""
    node.start("--set", "workers=1").up(1)
    node.mode("dies-before-ready")
    os.kill(node.seen(event="start")[-1]["pid"], signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", node.port), timeout=1):
        pass
    node.wait_seen(1 + 1 + 6, event="start", seconds=20)  # 0.1 + 0.2 + ... + 3.2 s

    def refused():
        try:
            socket.create_connection(("127.0.0.1", node.port), timeout=1).close()
            return False
        except ConnectionRefusedError:
            return True
    wait_for("a closed port", refused)
    node.mode("good")
    node.wait_seen(2, event="recovered", seconds=20)
    assert node.seen(event="start")[-1]["sockets"] == [node.port]
    socket.create_connection(("127.0.0.1", node.port), timeout=1).close()


# --- peers


def test_peers_know_each_other(node):
    node.start().up()
    ups = node.wait_seen(4, event="PEER_UP")
    starts = {s["pid"]: s for s in node.seen(event="start")}
    for sender in starts.values():
        holder, = [s for s in starts.values() if s["pid"] != sender["pid"]]
        out, = [u for u in ups if u["pid"] == sender["pid"] and u["slot"] is not None]
        back, = [u for u in ups if u["pid"] == holder["pid"] and u["slot"] is None]
        assert out["slot"] == holder["slot"] and out["peer"] == holder["incarnation"]
        assert back["peer"] == sender["incarnation"]
        # What one writes, the other reads.
        assert out["rings"] == back["rings"][::-1]
        assert out["fds"] == 4 and out["sizes"][:2] == [8 << 20, 8 << 20]


def test_peer_down(node):
    node.start().up()
    node.wait_seen(4, event="PEER_UP")
    start = node.seen(event="start", slot=0)[0]
    os.kill(start["pid"], signal.SIGKILL)
    down = node.wait_seen(1, event="PEER_DOWN")
    assert [d["peer"] for d in down] == [start["incarnation"]]
    node.wait_seen(8, event="PEER_UP")


# --- stop, drain, the master's own death


def test_ignores_drain(node):
    node.mode("ignores-drain")
    node.start("--set", "smtp.drain=1s").up()
    begin = time.monotonic()
    assert node.stop() == 0
    assert 1.9 < time.monotonic() - begin < 4
    assert "signal 15" in node.log()


def test_ignores_drain_and_term(node):
    node.mode("ignores-term")
    node.start("--set", "smtp.drain=1s").up()
    begin = time.monotonic()
    assert node.stop() == 0
    assert 3.9 < time.monotonic() - begin < 7
    assert "signal 9" in node.log()


def test_second_signal_stops_at_once(node):
    node.mode("ignores-term")
    node.start("--set", "smtp.drain=60s").up()
    node.process.send_signal(signal.SIGINT)
    node.wait_seen(2, event="DRAIN")
    begin = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - begin < 2


def test_children_leave_when_the_master_is_killed(node):
    node.start().up()
    pids = [s["pid"] for s in node.seen(event="start")] + [node.seen("api", event="start")[0]["pid"]]
    node.process.kill()
    node.process.communicate()
    node.wait_seen(2, event="eof")
    wait_for("all to leave", lambda: not any(alive(p) for p in pids))
    node.start()
    node.wait_seen(4, event="recovered")
    assert node.seen(event="start")[-1]["boot"] == 2


def test_drain_and_reload_by_the_operator(node):
    node.start().up()
    status, body = node.answer("drain", "seconds=9")
    assert (status, body["seconds"]) == (200, 9)
    assert {d["seconds"] for d in node.wait_seen(2, event="DRAIN")} == {9}
    wait_for("drained", lambda: node.answer("status")[1]["state"] == "drained")
    time.sleep(0.5)
    assert len(node.seen(event="start")) == 2
    assert node.answer("reload")[0] == 200
    node.wait_seen(4, event="recovered")
    wait_for("running", lambda: node.answer("status")[1]["state"] == "running")
    assert node.answer("drain", "seconds=-1")[0] == 400


def test_stop_by_the_operator(node):
    node.start().up()
    assert node.answer("stop")[1]["stopping"] is True
    assert node.process.wait(10) == 0


# --- reload


def test_reload(node):
    node.start().up()
    new_port = free_port()
    old = {s["slot"]: s for s in node.seen(event="start")}
    node.config(port=new_port, lanes=["127.0.0.11", "127.0.0.21"])
    status, body = node.answer("reload")
    assert (status, body["generation"]) == (200, 2)
    node.wait_seen(2, event="recovered", generation=2)
    new = {s["slot"]: s for s in node.seen(event="start", generation=2)}
    # Nobody holds the shards before the old one has left.
    for slot in (0, 1):
        left, = node.seen(event="leaves", pid=old[slot]["pid"])
        got, = node.seen(event="recovered", pid=new[slot]["pid"])
        assert left["t"] <= got["t"]
    # A new worker learns first that its predecessor holds its own slot.
    first = node.seen(event="PEER_UP", pid=new[0]["pid"], slot=0)
    assert old[0]["incarnation"] in [u["peer"] for u in first]
    assert [s["sockets"] for s in new.values()] == [[new_port]] * 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port), timeout=1)
    assert {s["boot"] for s in new.values()} == {1}
    lanes = {bytes.fromhex(x["address"])[-1]: x["lane"] for x in new[0]["lanes"]}
    assert lanes == {11: 1, 12: 2, 13: 3, 21: 4}
    # The api is told, and is the same process.
    assert [s["generation"] for s in node.seen("api", event="start")] == [1, 2]
    assert len({s["pid"] for s in node.seen("api", event="start")}) == 1
    configured = {x["address"]: x["configured"] for x in node.answer("status")[1]["lanes"]}
    assert configured == {"127.0.0.11": True, "127.0.0.21": True, "127.0.0.12": False,
                          "127.0.0.13": False}


def test_reload_by_signal(node):
    node.start().up()
    node.process.send_signal(signal.SIGHUP)
    node.wait_seen(2, event="recovered", generation=2)
    node.wait_log("generation 1 has left")


def test_reload_opens_the_log_again(node):
    node.start().up()
    os.rename(f"{node.dir}/log/mochila.log", f"{node.dir}/log/mochila.log.1")
    assert node.answer("reload")[0] == 200
    node.wait_log("generation 1 has left")
    node.wait_log("worker-1.2 recovered")


@pytest.mark.parametrize("how", ["dies-before-ready-later", "never-ready-later"])
def test_reload_whose_workers_fail(node, how):
    node.start("--ready-ms", "1000").up()
    pids = [s["pid"] for s in node.seen(event="start")]
    node.mode(how)
    status, body = node.answer("reload")
    assert status == 500 and "did not get ready" in body["error"]
    assert all(alive(p) for p in pids) and not node.seen(event="DRAIN")
    wait_for("no more new ones", lambda: len(node.answer("status")[1]["children"]) == 3)
    assert any("reload failed" in w for w in node.answer("status")[1]["warnings"])
    with socket.create_connection(("127.0.0.1", node.port), timeout=1):
        pass
    node.mode("good")
    assert node.answer("reload")[0] == 200
    node.wait_seen(2, event="leaves")


def test_reload_of_a_wrong_file(node):
    node.start().up()
    with open(f"{node.dir}/mochila.yaml", "a") as f:
        f.write("smpt: {}\n")
    status, body = node.answer("reload")
    assert status == 400 and "mochila.yaml:" in body["error"] and "smpt" in body["error"]
    node.config(workers=3)
    status, body = node.answer("reload")
    assert status == 400 and "workers" in body["error"] and "start it again" in body["error"]
    assert len(node.seen(event="start")) == 2 and not node.seen(event="DRAIN")


def test_reload_while_one_is_under_way(node):
    node.mode("ignores-drain")
    node.start("--set", "smtp.drain=2s").up()
    assert node.answer("reload")[0] == 200
    status, body = node.answer("reload")
    assert status == 409 and "still finishing" in body["error"]
    node.wait_log("generation 1 has left")
    assert node.answer("reload")[0] == 200


# --- holds, poison, questions


def test_holds(node):
    node.start().up()
    status, body = node.answer("hold", "kind=tenant", "value=ACME", "why=complaints")
    assert status == 200 and body["holds"][0]["value"] == "acme"
    assert [h["holds"] for h in node.wait_seen(2, event="HOLDS")] == [[["tenant", "acme"]]] * 2
    assert node.answer("hold", "kind=all")[0] == 200
    for wrong, text in ((["kind=tenant", "value=nobody"], "nobody"),
                        (["kind=lane", "value=127.0.0.99"], "127.0.0.99"),
                        (["kind=lane", "value=x"], "not an IP address"),
                        (["kind=message", "value=123"], "not a message id"),
                        (["kind=all", "value=x"], "takes no value"),
                        (["kind=site"], "needs a value"), (["kind=sight"], "expected lane")):
        status, body = node.answer("hold", *wrong)
        assert status == 400 and text in body["error"]
    assert node.stop() == 0
    os.remove(f"{node.dir}/worker.seen")
    node.start().up()
    assert all(s["held"] == 1 and sorted(s["holds"]) == [["all", ""], ["tenant", "acme"]]
               for s in node.seen(event="start"))
    assert node.answer("release", "kind=all")[0] == 200
    assert node.answer("release", "kind=all")[0] == 404
    assert node.wait_seen(2, event="HOLDS")[-1]["holds"] == [["tenant", "acme"]]
    rows = node.answer("audit")[1]["rows"]
    assert ("release kind=all", "done") in [(r["what"], r["result"]) for r in rows]


def test_queue_hold_of_the_configuration(node):
    node.start("--set", "queue.hold=true").up()
    assert all(s["held"] == 1 for s in node.seen(event="start"))
    assert any("held" in w for w in node.answer("status")[1]["warnings"])


def test_many_lanes_and_holds_need_many_frames(node):
    lanes = [f"127.1.{i // 250}.{i % 250 + 1}" for i in range(2000)]
    node.config(lanes=lanes)
    node.start().up()
    db = sqlite3.connect(f"{node.dir}/spool/state.db")
    db.executemany("INSERT INTO hold VALUES('site', ?, ?, ?)",
                   [(f"site-{i}-" + "x" * 200, "y" * 120, i) for i in range(1000)])
    db.commit()
    db.close()
    assert node.answer("hold", "kind=site", "value=one.more")[0] == 200
    last = [h for h in node.wait_seen(2, event="HOLDS", last=1)]
    assert len(last) == 2
    by_pid = {}
    for h in node.seen(event="HOLDS"):
        by_pid[h["pid"]] = by_pid.get(h["pid"], 0) + len(h["holds"])
    assert list(by_pid.values()) == [1001, 1001]
    node.stop()
    os.remove(f"{node.dir}/worker.seen")
    node.start().up()
    for s in node.seen(event="start"):
        assert len(s["lanes"]) == 2000 and len(s["holds"]) == 1001
        assert len({x["lane"] for x in s["lanes"]}) == 2000


def test_poisoned_message_is_parked(node, page_layout):
    with open(f"{node.dir}/page.json", "w") as f:
        f.write(page_layout)
    poison = bytes(range(1, 17)).hex()
    node.start("--set", "workers=1").up(1)
    node.mode(f"marker {poison}")
    os.kill(node.seen(event="start")[-1]["pid"], signal.SIGKILL)  # at no message: nobody's fault
    starts = node.wait_seen(4, event="start")
    assert [s["poison"] for s in starts[:4]] == [[], [], [], [poison]]
    node.mode("good")
    node.wait_seen(2, event="recovered")
    wait_for("a warning", lambda: any("parked" in w for w in node.answer("status")[1]["warnings"]))
    assert "gets another chance" in node.log() and "the message is parked" in node.log()
    assert node.stop() == 0
    node.start().up(3)
    assert node.seen(event="start")[-1]["poison"] == [poison]
    # Retried by its id, it is no longer parked by the next one.
    parked, = sqlite3.connect(f"{node.dir}/spool/state.db").execute("SELECT id FROM poison").fetchone()
    node.wait_answer(node.ask("retry", f"id={parked}"))
    starts = node.seen(event="start")
    os.kill(starts[-1]["pid"], signal.SIGKILL)
    node.wait_seen(len(starts) + 1, event="start")
    assert node.seen(event="start")[-1]["poison"] == []


def test_killed_at_a_message_is_not_its_fault(node, page_layout):
    """SIGKILL comes from outside: an innocent message must not be parked for it."""
    with open(f"{node.dir}/page.json", "w") as f:
        f.write(page_layout)
    node.mode("works on " + bytes(range(1, 17)).hex())
    node.start("--set", "workers=1").up(1)
    for i in (2, 3, 4):
        os.kill(node.seen(event="start")[-1]["pid"], signal.SIGKILL)
        node.wait_seen(i, event="recovered")
    assert node.seen(event="start")[-1]["poison"] == []
    assert "died at message" not in node.log()


def test_worker_that_hangs_is_killed(node, page_layout):
    with open(f"{node.dir}/page.json", "w") as f:
        f.write(page_layout)
    poison = bytes(range(1, 17)).hex()
    node.mode(f"hangs {poison}")
    node.start("--set", "workers=1", "--silence-ms", "600")
    starts = node.wait_seen(3, event="start")
    assert 0.5 < starts[1]["t"] - starts[0]["t"] < 1.5
    assert "gives no sign of life" in node.log()
    assert [s["poison"] for s in starts[:3]] == [[], [], [poison]]  # the hang is the message's doing
    node.mode("beats")
    killed = len(node.wait_seen(4, event="start"))
    time.sleep(1.5)
    assert len(node.seen(event="start")) == killed


def test_questions_go_to_all_workers(node):
    node.start().up()
    pieces = node.wait_answer(node.ask("ledger"))
    for slot in (0, 1):
        own = [p for p in pieces if p["slot"] == slot]
        assert "".join(p["body"] for p in own) == '{"rows":[]}'
        assert [p["last"] for p in own] == [0, 1]
    assert (pieces[-1]["slot"], pieces[-1]["body"], pieces[-1]["last"]) == (None, "", 1)
    assert node.answer("no-such-verb")[0] == 404


def test_question_to_a_silent_worker(node):
    node.mode("silent")
    node.start("--set", "workers=1").up(1)
    begin = time.monotonic()
    pieces = node.wait_answer(node.ask("queue"))
    assert 4.8 < time.monotonic() - begin < 6
    assert [(p["slot"], p["status"]) for p in pieces] == [(0, 504), (None, 200)]


def test_question_to_a_dead_worker(node):
    node.mode("silent")
    node.start().up()
    number = node.ask("queue")
    node.wait_seen(2, event="QUERY")
    node.mode("dies-before-ready")
    os.kill(node.seen(event="start", slot=1)[0]["pid"], signal.SIGKILL)
    wait_for("503", lambda: [p for p in node.seen("api", event="ANSWER", id=number)
                             if (p["slot"], p["status"]) == (1, 503)], 2)
    pieces = node.wait_answer(node.ask("queue"))
    assert (1, 503) in [(p["slot"], p["status"]) for p in pieces]


def test_status(node):
    node.start().up()
    status, s = node.answer("status")
    assert status == 200
    assert (s["node"], s["state"], s["generation"], s["boot"]) == ("t", "running", 1, 1)
    assert s["config"] == f"{node.dir}/mochila.yaml" and s["warnings"] == []
    workers = [c for c in s["children"] if "slot" in c]
    assert [c["slot"] for c in workers] == [0, 1]
    assert all(c["state"] == "ready" and c["holds_shards"] and alive(c["pid"]) for c in workers)
    assert [c["name"] for c in s["children"]][-1] == "api"
    assert len(s["lanes"]) == 3 and s["lanes"][0]["address"] == "127.0.0.11"
    assert node.answer("version")[1]["node"] == "t"


def test_api_that_dies_is_replaced(node):
    node.start().up()
    os.kill(node.seen("api", event="start")[0]["pid"], signal.SIGKILL)
    node.wait_seen(2, "api", event="start")
    assert node.answer("status")[0] == 200
    assert len(node.seen(event="start")) == 2
