"""A whole node, a source and a sink for the survival tests: started, killed, looked at, counted.

Everything lives in one directory on a disk (never in memory), listens on free ports of the loopback and is
gone at the end. The two records (what the source was promised, what the sink has) are the only judges.
"""
import collections
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.abspath(os.environ.get("MOCHILA_BIN", os.path.join(ROOT, "build", "debug")))
# A sanitizer's report must not be mistaken for a planned death.
SAN = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=77:detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
PLANNED = "mochila-test-planned"


def free_port(address="127.0.0.1"):
    """Below the ephemeral range, so that no outgoing connection sits on it when the node restarts."""
    import random
    for _ in range(200):
        port = random.randrange(10000, 30000)
        with socket.socket() as s:
            try:
                s.bind((address, port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


def wait_for(what, condition, seconds=20, every=0.02):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(every)


def descend(pid):
    """Pids of the children of a process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def sockets_to(pid, port):
    """Established TCP connections of a process to a remote port."""
    inodes = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                name = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    except OSError:
        return 0
    count = 0
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as f:
            next(f)
            for line in f:
                part = line.split()
                if part[9] in inodes and int(part[2].rsplit(":", 1)[1], 16) == port:
                    count += 1
    return count


class Node:
    """mochilad and its children."""

    def __init__(self, workers=2, lanes=4, sink_port=None, directory=None, extra=None, env=None, via=None):
        self.own_dir = directory is None
        base = os.environ.get("TMPDIR", "/var/tmp")
        self.dir = directory or tempfile.mkdtemp(prefix="mochila-survive-", dir=base)
        self.port = free_port()
        self.sink_port = sink_port or free_port()
        self.via = via or f"127.0.0.1:{self.sink_port}"
        self.workers = workers
        self.lanes = [f"127.0.0.{21 + i}" for i in range(lanes)]
        self.extra = extra or {}
        self.env = {**os.environ, **SAN, **(env or {})}
        self.process = None
        self.masters_killed = set()
        self.write_config()

    # --- configuration ---
    def text(self):
        sections = {
            "smtp": {"connections_per_ip": 0, "connections_per_net": 0, "accept_per_s_per_ip": 0,
                     "drain": "3s"},
            "queue": {"retry_first": "1s", "retry_greylist": "1s", "retry_max": "2s",
                      "retry_jitter_percent": 0},
            "client": {"host_retry": "1s", "host_retry_max": "1s", "connect": "5s"},
            "spool_options": {"segment": "16M", "reserve": "16M", "spares": 1},
            "dns": {"enabled": "false"},
            "limits": {"connections": 20, "messages_per_connection": 0, "messages_per_s": 0},
        }
        for name, keys in self.extra.items():
            sections.setdefault(name, {}).update(keys)
        limits = sections.pop("limits")
        out = [f"node: survive\nhostname: survive.test\nworkers: {self.workers}\n"
               f"spool: {self.dir}/spool\nrun: {self.dir}/run\nlog: {self.dir}/log\n"
               f"listen:\n  - {{address: 127.0.0.1, port: {self.port}, role: relay}}\n"
               "relay_from: [127.0.0.0/8]\npools:\n  main:\n    lanes:\n"]
        for i, lane in enumerate(self.lanes):
            out.append(f"      - {{address: {lane}, ehlo: l{i}.survive.test}}\n")
        out.append("tenants:\n  default: {pool: main}\n")
        if self.via != "mx":
            out.append(f'routes:\n  - {{domain: "*", via: "{self.via}", limits: {self.flow(limits)}}}\n')
        for name, keys in sections.items():
            out.append(f"{name}: {self.flow(keys)}\n")
        return "".join(out)

    @staticmethod
    def flow(keys):
        return "{" + ", ".join(f"{k}: {v}" for k, v in keys.items()) + "}"

    def write_config(self, text=None):
        path = f"{self.dir}/mochila.yaml"
        with open(path + ".new", "w") as f:
            f.write(text if text is not None else self.text())
        os.rename(path + ".new", path)

    # --- life ---
    def start(self, wait=True, seconds=30, prefix=()):
        os.makedirs(f"{self.dir}/log", exist_ok=True)
        self.process = subprocess.Popen(
            [*prefix, f"{BIN}/mochilad", "-f", f"{self.dir}/mochila.yaml", "--allow-volatile-spool"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(f"{self.dir}/mochilad.stderr", "a"), env=self.env)
        if wait:
            wait_for("the node to serve", self.serves, seconds)
        return self

    def serves(self):
        if self.process.poll() is not None:
            raise AssertionError(f"mochilad left with {self.process.returncode}: {self.stderr()[-2000:]}")
        pids = self.pids("mochila-worker")
        return len(pids) >= self.workers and self.greets() and self.recovered()

    def recovered(self):
        answer = self.ask("ledger")
        return answer is not None and "balance" in answer and not answer.get("missing")

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as s:
                s.settimeout(2)
                return s.recv(512).startswith(b"220")
        except OSError:
            return False

    def stop(self, seconds=30):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise AssertionError(f"mochilad did not stop within {seconds} s")
        return self.process.returncode

    def kill_master(self):
        """SIGKILL; the workers finish on their own. Returns when they have left."""
        left = self.children()
        self.process.kill()
        self.process.wait()
        return left

    def kill_all(self):
        if self.process is None:
            return
        pids = self.children()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        for pid in pids:
            wait_for(f"process {pid} to go", lambda p=pid: state_of(p) in ("", "Z"), 10)

    def children(self):
        return descend(self.process.pid) if self.process else []

    def pids(self, name):
        return [p for p in self.children() if comm(p) == name[:15] and state_of(p) != "Z"]

    def close(self):
        self.kill_all()
        if self.own_dir and not os.environ.get("MOCHILA_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # --- what it says ---
    def ctl(self, *args, timeout=20):
        return subprocess.run([f"{BIN}/mochila", "--socket", f"{self.dir}/run/api.sock", *args],
                              capture_output=True, text=True, timeout=timeout, env=self.env)

    def ask(self, *args):
        """The JSON answer, or None while there is none."""
        try:
            r = self.ctl("--json", *args)
        except subprocess.TimeoutExpired:
            return None
        try:
            return json.loads(r.stdout)
        except ValueError:
            return None

    def ledger(self):
        return self.ask("ledger")

    def queued(self):
        l = self.ledger()
        return None if l is None else l["queued"]

    def stderr(self):
        try:
            with open(f"{self.dir}/mochilad.stderr") as f:
                return f.read()
        except OSError:
            return ""

    def log(self):
        try:
            with open(f"{self.dir}/log/mochila.log", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def unplanned(self, killed=()):
        """Lines that tell of a death nobody asked for. killed: names and counts are in the log as signal 9."""
        bad = []
        pattern = re.compile(r"MUST|AddressSanitizer|runtime error|LeakSanitizer|signal (?!9\b|15\b)\d+|exit status 77"
                             r"|not listened to any more|is damaged on disk|NOT balanced")
        for line in (self.log() + self.stderr()).splitlines():
            if pattern.search(line):
                bad.append(line)
        nines = len(re.findall(r"-> \w+ event=exit .*signal 9", self.log()))
        if nines > len(killed):
            bad.append(f"{nines} deaths by signal 9, {len(killed)} asked for")
        return bad


def bench(*args, **kw):
    return subprocess.Popen([f"{BIN}/mochila-bench", *args], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, env={**os.environ, **SAN}, **kw)


class Sink:
    def __init__(self, directory, port, *args, name="sink", address="127.0.0.1"):
        self.record_path = f"{directory}/{name}.record"
        self.json_path = f"{directory}/{name}.json"
        self.stderr = open(f"{directory}/{name}.stderr", "a")
        self.process = bench("sink", "--listen", f"{address}:{port}", "--record", self.record_path,
                             "--json", self.json_path, "--quiet", *args, stderr=self.stderr)

        def up():
            assert self.process.poll() is None, open(f"{directory}/{name}.stderr").read()
            with socket.socket() as s:
                s.settimeout(1)
                return s.connect_ex((address, port)) == 0
        wait_for("the sink", up)

    def finish(self):
        """Ends it; Counter of (identity, recipient) -> copies."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        return self.copies()

    def copies(self):
        copies = collections.Counter()
        with open(self.record_path) as f:
            for line in f:
                part = line.split()
                if len(part) >= 2:
                    copies[(part[0], part[1])] += 1
        return copies

    def result(self):
        with open(self.json_path) as f:
            return json.load(f)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Source:
    def __init__(self, directory, port, *args, name="source"):
        self.record_path = f"{directory}/{name}.record"
        self.json_path = f"{directory}/{name}.json"
        self.stderr_path = f"{directory}/{name}.stderr"
        self.process = bench("source", "--to", f"127.0.0.1:{port}", "--record", self.record_path,
                             "--json", self.json_path, "--quiet", *args,
                             stderr=open(self.stderr_path, "a"))

    def wait(self, seconds=120):
        self.process.wait(seconds)
        return self.result()

    def stop(self, seconds=60):
        """No new messages; the open ones end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def result(self):
        with open(self.json_path) as f:
            return json.load(f)

    def promised(self):
        """(identity, recipient) of every acknowledged copy."""
        out = set()
        with open(self.record_path) as f:
            for line in f:
                part = line.split()
                for rcpt in part[1:]:
                    out.add((part[0], rcpt))
        return out

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def balanced(ledger):
    return (ledger["accepted"] ==
            ledger["delivered"] + ledger["bounced"] + ledger["expired"] + ledger["deleted"] +
            ledger["queued"] + ledger["handed_over"])


def drained(node, seconds=60):
    """Waits until nothing is queued; the last ledger."""
    def empty():
        l = node.ledger()
        return l if l is not None and l["queued"] == 0 else None
    return wait_for("the queue to drain", empty, seconds, 0.1)


def judge(promised, copies, doubles_most):
    """What is wrong with the two records, as lines; nothing: []."""
    wrong = []
    lost = [key for key in promised if key not in copies]
    if lost:
        wrong.append(f"LOST {len(lost)} of {len(promised)} promised: {sorted(lost)[:5]}")
    doubles = sum(n - 1 for n in copies.values())
    if doubles > doubles_most:
        wrong.append(f"{doubles} duplicates, at most {doubles_most} deliveries were in flight")
    return wrong
