"""A whole cluster for a test: real nodes in network namespaces, a sink and load behind a router.

    with Cluster(nodes=("a", "b"), lanes=16) as c:
        load = c.load(rate=500)
        c["a"].move_pool("main", "b")
        load.stop()
        c.drained()
        assert c.judge() == []

Everything lives in one directory, on a disk and not in memory, and is gone at the end (MOCHILA_KEEP=1 keeps
it). The records of what was promised to the load's sources and of what the sink took are the judges; the
nodes' own ledgers must agree with them. Programs come from MOCHILA_BIN (preset: build/debug).
"""
import collections
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from urllib.parse import urlencode

from netlab import WORLD4, Lab, lane_address

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.abspath(os.environ.get("MOCHILA_BIN", os.path.join(ROOT, "build", "debug")))
SAN = {"ASAN_OPTIONS": "abort_on_error=0:exitcode=77:detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
SMTP_PORT, LINK_PORT, SINK_PORT = 2525, 7525, 2526
OVER = ("done", "aborted", "refused", "failed")
EVEN, ODD = range(20000, 40000), range(40000, 60000)
CHILDREN = {"worker": "mochila-worker", "link": "mochila-link", "netd": "mochila-netd", "api": "mochila-api"}


def wait_for(what, condition, seconds=30, every=0.02):
    """The first true value of condition(); fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(every)


def slice_of(epoch):
    return ODD if epoch % 2 else EVEN


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class ClusterNode:
    """mochilad and its children on one host."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.host = cluster.lab[name]
        self.dir = f"{cluster.dir}/{name}"
        self.env = {}
        self.process = None
        self.killed = 0  # deaths by signal 9 that a test asked for
        os.makedirs(f"{self.dir}/log")
        os.chmod(self.dir, 0o711)

    # --- life ---

    def start(self, wait=True, **env):
        """env: for this life of the node alone, such as MOCHILA_FAULT_MOVE."""
        assert self.process is None, f"{self.name} runs already"
        program = f"{BIN}/mochilad"
        assert os.access(program, os.X_OK), f"{program} is not there: build it, or set MOCHILA_BIN"
        with open(f"{self.dir}/stderr", "ab") as err:
            self.process = self.host.start(program, "-f", self.config_path, "--allow-volatile-spool",
                                           stdout=err, stderr=err,
                                           env={**os.environ, **SAN, **self.env, **env})
        if wait:
            self.wait_serves()
        return self

    def wait_serves(self, seconds=40):
        wait_for(f"{self.name} to serve", self.serves, seconds)

    def serves(self):
        if self.process.poll() is not None:
            raise AssertionError(f"mochilad of {self.name} left with {self.process.returncode}: "
                                 f"{self.log_text()[-2000:]}")
        ledger = self.ask("ledger")
        return (ledger is not None and "balance" in ledger and not ledger.get("missing") and
                len(self.pids("worker")) >= self.cluster.workers)

    def stop(self, seconds=60):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"{self.name} did not stop within {seconds} s") from None
        self.process = None
        return status

    def children(self):
        if self.process is None:
            return []
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
                return [p for p in map(int, f.read().split()) if alive(p)]
        except OSError:
            return []

    def pids(self, what):
        """Of one kind of process: master, worker, link, netd, api."""
        if what == "master":
            return [self.process.pid] if self.process is not None and alive(self.process.pid) else []
        return [p for p in self.children() if comm(p) == CHILDREN[what][:15]]

    def kill(self, what):
        """SIGKILL to every process of one kind; "all": to all at once, as a power cut has it."""
        if what == "all":
            return self.kill_all()
        pids = wait_for(f"a {what} of {self.name}", lambda: self.pids(what), 20)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            self.killed += 1
        if what == "master":
            left = self.children()
            self.process.wait()
            self.process = None
            for pid in left:  # they finish by themselves
                wait_for(f"process {pid} of {self.name} to leave", lambda p=pid: not alive(p), 60)
        return pids

    def kill_all(self):
        if self.process is None:
            return
        pids = [self.process.pid] + self.children()
        for s in (signal.SIGSTOP, signal.SIGKILL):  # so that nobody starts or notices anything meanwhile
            for pid in set(pids) | set(self.children()):
                try:
                    os.kill(pid, s)
                except ProcessLookupError:
                    pass
        self.process.wait()
        self.process = None
        for pid in pids:
            wait_for(f"process {pid} to go", lambda p=pid: not alive(p), 20)

    def ended(self):
        """The master is gone (a fault point killed it)."""
        return self.process is None or not alive(self.process.pid)

    def restart_if_ended(self, **env):
        if self.process is not None and not alive(self.process.pid):
            left = self.children()
            self.process.wait()
            self.process = None
            for pid in left:
                wait_for(f"process {pid} of {self.name} to leave", lambda p=pid: not alive(p), 60)
        if self.process is None:
            self.start(wait=False, **env)

    # --- asking ---

    @property
    def config_path(self):
        return f"{self.dir}/mochila.yaml"

    @property
    def socket_path(self):
        return f"{self.dir}/run/api.sock"

    def cli(self, *args, timeout=60, **kw):
        return subprocess.run([f"{BIN}/mochila", "--socket", self.socket_path, *args], capture_output=True,
                              text=True, timeout=timeout, stdin=subprocess.DEVNULL, **kw)

    def cli_start(self, *args, **kw):
        kw.setdefault("stdout", subprocess.DEVNULL)
        kw.setdefault("stderr", subprocess.DEVNULL)
        return subprocess.Popen([f"{BIN}/mochila", "--socket", self.socket_path, *args],
                                stdin=subprocess.DEVNULL, **kw)

    def ask(self, *args, timeout=20):
        """The JSON answer, or None while there is none."""
        try:
            done = self.cli(*args, "--json", timeout=timeout)
        except subprocess.TimeoutExpired:
            return None
        try:
            return json.loads(done.stdout) if done.returncode == 0 else None
        except ValueError:
            return None

    def api(self, verb, method="GET", **args):
        """The JSON answer without a process for it, or None."""
        connection = UnixConnection(self.socket_path)
        try:
            connection.request(method, f"/v1/{verb}" + (f"?{urlencode(args)}" if args else ""))
            reply = connection.getresponse()
            body = reply.read()
            return json.loads(body) if reply.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def ledger(self):
        return self.api("ledger")

    def status(self):
        return self.api("cluster")

    def lane(self, address):
        """What this node says of a lane, or None."""
        rows = (self.status() or {}).get("lanes", [])
        return next((row for row in rows if row["lane"] == address), None)

    def owned(self):
        return {row["lane"] for row in (self.status() or {}).get("lanes", [])
                if row["owner"] == self.name and row["role"] == "owner"}

    def moves(self, ident=None):
        answer = self.api("moves", **({"id": ident} if ident else {}))
        return (answer or {}).get("moves", [])

    # --- orders ---

    def order(self, *words, timeout=60):
        """A move, detached: (id, "") or (None, why not)."""
        done = self.cli(*words, "--detach", "--json", timeout=timeout)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            return None, done.stdout + done.stderr
        move = answer.get("move")
        if move is None or move["state"] == "refused":
            return None, answer.get("error") or (move or {}).get("reason") or done.stdout + done.stderr
        return move["id"], ""

    def move_pool(self, pool, to, *more, seconds=60):
        """Moves, waits for the end, returns the move."""
        ident, why = self.order("pool", "move", pool, "--to", to, *more)
        assert ident is not None, why
        return self.wait_move(ident, seconds)

    def order_when_free(self, *words, seconds=40):
        """The same; waits while the tail of the last move is still open."""
        last = []

        def taken():
            last[:] = self.order(*words)
            assert last[0] is not None or "of its last move" in last[1], last[1]
            return last[0]
        return wait_for(lambda: f"{words}: {last}", taken, seconds, 0.2)

    def stopped(self):
        """A fault point has stopped the master."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "T"
        except OSError:
            return False

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def wait_move(self, ident, seconds=60):
        last = {}

        def over():
            last.clear()
            for m in self.moves(ident):
                last.update(m)
            return last if last.get("state") in OVER else None
        return wait_for(lambda: f"the end of {ident}: {json.dumps(last)[:1500]}", over, seconds, 0.1)

    # --- logs ---

    def log_text(self):
        out = []
        for path in [f"{self.dir}/stderr", *sorted(glob.glob(f"{self.dir}/log/*.log"))]:
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    out.append(f.read())
            except OSError:
                pass
        return "".join(out)

    def events(self, what=None):
        out = []
        for path in sorted(glob.glob(f"{self.dir}/log/events-*.jsonl*")):
            with open(path, "rb") as f:
                out += [json.loads(line) for line in f.read().split(b"\n")[:-1]]
        return [e for e in out if what is None or e["event"] == what]

    def unplanned(self):
        """Lines of the log that tell of a death that nobody asked for, or of damage."""
        pattern = re.compile(r"MUST|AddressSanitizer|runtime error|LeakSanitizer|signal (?!9\b|15\b)\d+"
                             r"|exit status 77|is damaged on disk|NOT balanced")
        return [f"{self.name}: {line}" for line in self.log_text().splitlines() if pattern.search(line)]


class Load:
    """Sources in the world, one for each node that takes mail; records of what was promised."""

    def __init__(self, cluster, nodes, rate, connections, more):
        self.cluster = cluster
        self.number = cluster.loads = cluster.loads + 1
        self.sources = []
        for name in nodes:
            stem = f"{cluster.dir}/source-{self.number}-{name}"
            command = [f"{BIN}/mochila-bench", "source", "--to", f"{cluster.lab.address(name)}:{SMTP_PORT}",
                       "--record", f"{stem}.record", "--json", f"{stem}.json", "--quiet", "--retry",
                       "--connections", str(connections), *more]
            if rate:
                command += ["--rate", f"{rate / len(nodes):g}"]
            if "--count" not in more:
                command += ["--duration", "3600"]
            process = cluster.lab.world.start(*command, stdout=subprocess.DEVNULL,
                                              stderr=open(f"{stem}.stderr", "a"))
            self.sources.append((stem, process))
        cluster.running.append(self)

    def wait(self, seconds=120):
        for _, process in self.sources:
            process.wait(seconds)
        return self.results()

    def stop(self, seconds=60):
        """No new messages; the open ones end."""
        for _, process in self.sources:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def results(self):
        out = []
        for stem, _ in self.sources:
            with open(f"{stem}.json") as f:
                out.append(json.load(f))
        return out

    def close(self):
        for _, process in self.sources:
            if process.poll() is None:
                process.kill()
                process.wait()


class Sink:
    def __init__(self, cluster, more):
        self.stem = f"{cluster.dir}/sink"
        self.process = cluster.lab.world.start(
            f"{BIN}/mochila-bench", "sink", "--listen", f"{WORLD4}:{SINK_PORT}", "--record", f"{self.stem}.record",
            "--record-connections", f"{self.stem}.connections", "--json", f"{self.stem}.json", "--quiet", *more,
            stdout=subprocess.DEVNULL, stderr=open(f"{self.stem}.stderr", "a"))
        wait_for("the sink", self.listens)

    def listens(self):
        assert self.process.poll() is None, "the sink left"
        with open(f"{self.stem}.stderr") as f:
            return "listening" in f.read()

    def finish(self):
        """Ends it, once; its JSON."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        with open(f"{self.stem}.json") as f:
            return json.load(f)

    def copies(self):
        """[(identity, recipient, address, port, ns)], of a sink that has ended."""
        with open(f"{self.stem}.record") as f:
            rows = [line.split() for line in f]
        return [(r[0], r[1], r[2], int(r[3]), int(r[4])) for r in rows if len(r) == 5]

    def connections(self):
        """[(open|ours|eof|reset, address, port, ns, messages)]"""
        with open(f"{self.stem}.connections") as f:
            rows = [line.split() for line in f]
        return [(r[0], r[1], int(r[2]), int(r[3]), int(r[4])) for r in rows if len(r) == 5]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Cluster:
    """
    nodes      names; the first is home to all lanes
    lanes      how many, in the pool "main"; pools: {name: (home, [addresses])} instead
    workers    of each node, or {name: count}
    sink       options of the sink; slow: a preset of answers after 0.3-5 s
    limits     of a lane at the sink
    sections   {section: {key: value}}, over the fixture's own
    disks      {name: size} of nodes that get a file system of that size as their spool
    """

    def __init__(self, nodes=("a", "b"), lanes=4, pools=None, workers=1, slow=False, sink=(), limits=None,
                 sections=None, start=True, env=None, disks=None):
        self.lab = None
        self.running, self.nodes, self.loads = [], {}, 0
        self.sink = None
        self.names, self.workers = list(nodes), workers
        self.pools = pools or {"main": (nodes[0], [lane_address(i + 1) for i in range(lanes)])}
        self.limits = {"connections": 100, "messages_per_connection": 0, "messages_per_s": 0,
                       "new_connections_per_s": 0, **(limits or {})}
        self.sections = sections or {}
        self.mounts = []
        self.dir = tempfile.mkdtemp(prefix="mochila-cluster-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        os.chmod(self.dir, 0o711)
        try:
            self.lab = Lab(nodes)
            self.make_certificates()
            for name in nodes:
                self.nodes[name] = ClusterNode(self, name)
                self.nodes[name].env.update(env or {})
                self.write_config(name)
                if name in (disks or {}):
                    self.mount(f"{self.dir}/{name}/spool", disks[name])
            self.sink = Sink(self, [*(("--delay", "dot=300-5000") if slow else ()), *sink])
            if start:
                self.start()
        except BaseException:
            self.show_logs()
            self.close()
            raise

    def __getitem__(self, name):
        return self.nodes[name]

    @property
    def lanes(self):
        return [address for _, addresses in self.pools.values() for address in addresses]

    # --- making ---

    def mount(self, path, size):
        os.makedirs(path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "mochila-test", path], check=True)
        self.mounts.append(path)

    def make_certificates(self):
        def cluster(*args):
            done = subprocess.run([f"{BIN}/mochila", "cluster", *args], capture_output=True, text=True)
            assert done.returncode == 0, f"mochila cluster {args}: {done.stderr}"
        cluster("init", "test", "--dir", f"{self.dir}/ca")
        for name in self.names:
            bundle = f"{self.dir}/{name}.bundle"
            cluster("issue", name, "--dir", f"{self.dir}/ca", "--out", bundle)
            cluster("join", bundle, "--dir", f"{self.dir}/pki-{name}")
            os.unlink(bundle)

    def config(self, name):
        """As data: YAML takes JSON."""
        d = f"{self.dir}/{name}"
        pki = f"{self.dir}/pki-{name}"
        peers = {p: f"{self.lab.address(p)}:{LINK_PORT}" for p in self.names if p != name}
        text = {
            "node": name,
            "node_id": self.lab.number(name),
            "hostname": f"{name}.cluster.test",
            "workers": self.workers[name] if isinstance(self.workers, dict) else self.workers,
            "pin": False,
            "spool": f"{d}/spool", "run": f"{d}/run", "log": f"{d}/log",
            "relay_from": ["10.98.0.0/24", "127.0.0.0/8"],
            "listen": [{"address": self.lab.address(name), "port": SMTP_PORT},
                       {"address": "127.0.0.1", "port": SMTP_PORT}],
            "cluster": {"name": "test", "listen": f"{self.lab.address(name)}:{LINK_PORT}",
                        "source": self.lab.address(name), "peers": peers, "ca": f"{pki}/ca.pem",
                        "certificate": f"{pki}/node.pem", "key": f"{pki}/node.key",
                        "driver": "l2", "interface": "eth0"},
            "smtp": {"connections_per_ip": 0, "connections_per_net": 0, "accept_per_s_per_ip": 0, "drain": "3s"},
            "queue": {"retry_first": "1s", "retry_greylist": "1s", "retry_max": "2s", "retry_jitter_percent": 0},
            "client": {"host_retry": "1s", "host_retry_max": "1s", "connect": "5s", "quit": "2s"},
            "spool_options": {"segment": "16M", "reserve": "16M", "spares": 1},
            "dns": {"enabled": False},
            "pools": {pool: {"home": home, "lanes": [{"address": a, "ehlo": f"l{i}.{pool}.test"}
                                                      for i, a in enumerate(addresses)]}
                      for pool, (home, addresses) in self.pools.items()},
            "tenants": {"default": {"pool": next(iter(self.pools))}},
            "routes": [{"domain": "*", "via": f"{WORLD4}:{SINK_PORT}", "limits": self.limits}],
        }
        for section, keys in self.sections.items():
            text.setdefault(section, {}).update(keys)
        return text

    def write_config(self, name, change=lambda text: text):
        with open(f"{self.dir}/{name}/mochila.yaml", "w") as f:
            for key, value in change(self.config(name)).items():
                f.write(f"{key}: {json.dumps(value)}\n")

    def start(self):
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_serves()
        self.wait_settled()

    # --- states ---

    def sees_all(self, name):
        status = self.nodes[name].status()
        return status is not None and {n["node"] for n in status["nodes"] if n["up"]} == set(self.names)

    def wait_settled(self, seconds=60):
        """All nodes see each other, each lane has one owner on whose host its address is, and runs."""
        last = []

        def settled():
            last[:] = self.unsettled()
            return not last
        wait_for(lambda: f"a settled cluster: {last[:5]}", settled, seconds, 0.1)

    def unsettled(self):
        out = [f"{n} does not see all" for n in self.names if not self.sees_all(n)]
        if out:
            return out
        rows = {n: {r["lane"]: r for r in self.nodes[n].status()["lanes"]} for n in self.names}
        held = {n: self.lab[n].addresses() for n in self.names}
        for lane in self.lanes:
            owners = {n for n in self.names if rows[n].get(lane, {}).get("owner") == n}
            views = {(rows[n].get(lane, {}).get("owner"), rows[n].get(lane, {}).get("epoch")) for n in self.names}
            if len(owners) != 1 or len(views) != 1:
                out.append(f"{lane}: {views}, owners {owners}")
                continue
            owner = owners.pop()
            if not rows[owner][lane].get("run") or rows[owner][lane].get("role") != "owner":
                out.append(f"{lane} does not run at {owner}: {rows[owner][lane]}")
            elif [n for n in self.names if held[n].get(lane) == "eth0"] != [owner]:
                out.append(f"{lane} of {owner} is at {[n for n in self.names if held[n].get(lane) == 'eth0']}")
        return out

    def owner(self, lane):
        """Who says that it owns the lane; two are an error."""
        owners = [n for n, node in self.nodes.items() if node.process is not None and lane in node.owned()]
        assert len(owners) <= 1, f"{lane} has two owners: {owners}"
        return owners[0] if owners else None

    def epoch(self, lane):
        return max((node.lane(lane) or {"epoch": 0})["epoch"] for node in self.nodes.values()
                   if node.process is not None)

    # --- work ---

    def load(self, rate=500, nodes=None, connections=40, more=()):
        return Load(self, nodes or self.names, rate, connections, list(more))

    def queued(self):
        ledgers = [n.ledger() for n in self.nodes.values() if n.process is not None]
        return None if None in ledgers else sum(one["queued"] for one in ledgers)

    def drained(self, seconds=120):
        """Nothing is queued anywhere, nothing under way between nodes."""
        def empty():
            if self.queued() != 0:
                return False
            whole = self.nodes[self.names[0]].ask("ledger", "--cluster")
            return whole if whole and whole["sum"]["in_transit"] == 0 and whole.get("complete") else None
        return wait_for(lambda: f"empty queues: {[(n, x.ledger()) for n, x in self.nodes.items()]}", empty,
                        seconds, 0.2)

    # --- judgement ---

    def promised(self):
        out = set()
        for path in glob.glob(f"{self.dir}/source-*.record"):
            with open(path) as f:
                for line in f:
                    part = line.split()
                    out.update((part[0], rcpt) for rcpt in part[1:])
        return out

    def judge(self, doubles_most=0, resets_most=0, cuts_most=0):
        """Ends the sink. What is wrong, as lines; nothing: []."""
        result = self.sink.finish()
        copies = collections.Counter((c[0], c[1]) for c in self.sink.copies())
        promised = self.promised()
        wrong = []
        lost = [key for key in promised if key not in copies]
        if not promised:
            wrong.append("nothing was promised: this says nothing")
        if lost:
            wrong.append(f"LOST {len(lost)} of {len(promised)}: {sorted(lost)[:5]}")
        doubled = [key for key, n in copies.items() if n > 1]
        if sum(copies.values()) - len(copies) > doubles_most:
            wrong.append(f"{sum(copies.values()) - len(copies)} duplicates, at most {doubles_most} were in doubt: "
                         f"{sorted(doubled)[:5]}")
        for name, most in (("connections_reset", resets_most), ("cut_in_transaction", cuts_most)):
            if result[name] > most:
                wrong.append(f"{name}: {result[name]}, at most {most}")
        return wrong + self.judge_nodes()

    def judge_nodes(self):
        wrong = []
        for node in self.nodes.values():
            wrong += node.unplanned()
            ledger = node.ledger() if node.process is not None else None
            if ledger is not None and ledger["balance"] != 0:
                wrong.append(f"ledger of {node.name}: {ledger}")
        whole = self.nodes[self.names[0]].ask("ledger", "--cluster")
        if whole is None or not whole.get("balanced"):
            wrong.append(f"ledger --cluster: {whole}")
        return wrong

    def show_logs(self, lines=40):
        for node in self.nodes.values():
            print(f"--- {node.name}")
            print("\n".join(node.log_text().splitlines()[-lines:]))

    def close(self):
        for load in self.running:
            load.close()
        for node in self.nodes.values():
            node.kill_all()
        if self.sink is not None:
            self.sink.close()
        if self.lab is not None:
            self.lab.close()
        for path in self.mounts:
            subprocess.run(["umount", "-l", path], check=False)
        if not os.environ.get("MOCHILA_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is not None and kind is not GeneratorExit:
                self.show_logs()
        finally:
            self.close()
