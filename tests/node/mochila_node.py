"""A whole node for a test: real mochilad, workers and api on free loopback ports.

    with Node(routes=[("*", sink.address)], lanes=("127.0.0.11", "127.0.0.12")) as node:
        talk = Talker(node.address)
        ...
        assert node.ledger()["balance"] == 0

Everything lives in one directory, which is removed at the end; of a failed test the log's end is
printed. Programs come from the directory in MOCHILA_BIN (preset: build/debug).
"""
import glob
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.abspath(os.environ.get("MOCHILA_BIN", os.path.join(ROOT, "build", "debug")))
PATIENCE_S = 30


def wait_for(what, condition, seconds=PATIENCE_S):
    """The first true value of condition(); fails the test after so many seconds."""
    end = time.monotonic() + seconds
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def free_port(address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def flow(value):
    """A value as YAML: JSON is a part of it."""
    return json.dumps(value)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Node:
    """
    workers    number of worker processes
    listeners  dicts of the listener's keys; address and port are filled in where they lack
    lanes      source addresses of the pool "main", or (address, more keys) pairs
    pools      text of the whole pools: section instead of lanes
    tenants    text of the tenants: section
    routes     (domain, via) or (domain, via, {more keys}); via may be None or a host:port
    smtp, queue, client, spool_options, dns, limits: dicts of keys, added to the fixture's own
    extra      YAML text that is added at the end
    """

    def __init__(self, *, workers=1, listeners=None, lanes=("127.0.0.11",), pools=None, tenants=None,
                 routes=(), relay_from=("127.0.0.0/8", "::1"), relay_domains=(), smtp=None,
                 queue=None, client=None, spool_options=None, dns=None, limits=None, extra="",
                 hostname="mx.node.test", name="test", start=True, env=None, binaries=BIN):
        self.binaries = binaries
        # Not pytest's tmp_path: the spool must not lie in memory.
        self.dir = tempfile.mkdtemp(prefix="mochila-node-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.process = None
        self.env = env
        self.name, self.hostname, self.workers = name, hostname, workers
        self.listeners = [dict(one) for one in (listeners or [{}])]
        for one in self.listeners:
            one.setdefault("address", "127.0.0.1")
            one.setdefault("port", free_port(one["address"]))
        self.addresses = [(one["address"], one["port"]) for one in self.listeners]
        self.address = self.addresses[0]
        self.sections = {
            # Thousands of connections from one address are one test, not an attack.
            "smtp": {"connections_per_ip": 0, "connections_per_net": 0, "accept_per_s_per_ip": 0,
                     **(smtp or {})},
            "queue": queue or {},
            "client": {"quit": "1s", **(client or {})},
            "spool_options": {"segment": "8M", "reserve": "0", "spares": 1, **(spool_options or {})},
            "dns": {"enabled": False, **(dns or {})},
            "limits": limits or {},
        }
        self.lanes, self.pools, self.tenants, self.routes = lanes, pools, tenants, list(routes)
        self.relay_from, self.relay_domains, self.extra = relay_from, relay_domains, extra
        self.write_config()
        if start:
            try:
                self.start()
            except BaseException:
                self.remove()
                raise

    # --- files ---

    @property
    def config_path(self):
        return f"{self.dir}/mochila.yaml"

    @property
    def socket_path(self):
        return f"{self.dir}/run/api.sock"

    def write_config(self):
        """From the fields, so that a test may change them and call reload()."""
        out = [f"node: {self.name}", f"hostname: {self.hostname}", f"workers: {self.workers}",
               "pin: false", f"spool: {self.dir}/spool", f"run: {self.dir}/run",
               f"log: {self.dir}/log", f"relay_from: {flow(list(self.relay_from))}"]
        if self.relay_domains:
            out.append(f"relay_domains: {flow(list(self.relay_domains))}")
        for section, keys in self.sections.items():
            if keys:
                out.append(f"{section}: {flow(keys)}")
        out.append("listen:")
        out += [f"  - {flow(one)}" for one in self.listeners]
        out.append(self.pools.rstrip() if self.pools else self.own_pool())
        if self.tenants:
            out.append(self.tenants.rstrip())
        if self.routes:
            out.append("routes:")
        for domain, via, *more in self.routes:
            route = {"domain": domain, **(more[0] if more else {})}
            if via is not None:
                route["via"] = via if isinstance(via, str) else f"{via[0]}:{via[1]}"
            out.append(f"  - {flow(route)}")
        if self.extra:
            out.append(self.extra)
        with open(self.config_path, "w") as f:
            f.write("\n".join(out) + "\n")

    def own_pool(self):
        out = ["pools:", "  main:", "    lanes:"]
        for i, lane in enumerate(self.lanes):
            address, keys = (lane, {}) if isinstance(lane, str) else lane
            out.append(f"      - {flow({'address': address, 'ehlo': f'lane{i}.node.test', **keys})}")
        return "\n".join(out)

    # --- life ---

    def start(self, *options):
        assert self.process is None, "the node runs already"
        program = f"{self.binaries}/mochilad"
        assert os.access(program, os.X_OK), f"{program} is not there: build it, or set MOCHILA_BIN"
        with open(f"{self.dir}/stderr", "ab") as err:
            self.process = subprocess.Popen([program, "-f", self.config_path, *options], stderr=err,
                                            stdout=err, stdin=subprocess.DEVNULL, env=self.env,
                                            start_new_session=True)
        try:
            for address in self.addresses:
                wait_for(f"a greeting from {address}", lambda a=address: self.greets(a))
            wait_for("all children", self.all_ready)
        except BaseException:
            self.show_logs()
            self.end_all()
            raise
        return self

    def greets(self, address):
        self.must_run()
        try:
            with socket.create_connection(address, timeout=5) as s:
                return s.recv(4)[:3] == b"220"
        except OSError:
            return False

    def all_ready(self):
        self.must_run()
        try:
            children = self.api("status")["children"]
            recovered = not self.api("ledger").get("missing")
        except (OSError, http.client.HTTPException, AssertionError):
            return False
        if not recovered:
            return False
        ready = [c for c in children if c.get("state") == "READY" or c.get("state") == "ready"]
        return len(ready) > self.workers or len(ready) == len(children) >= self.workers

    def must_run(self):
        assert self.process is not None, "the node was not started"
        assert self.process.poll() is None, f"mochilad ended with {self.process.returncode}"

    def pids(self):
        """The master's and all its children's."""
        if self.process is None:
            return []
        master = self.process.pid
        try:
            with open(f"/proc/{master}/task/{master}/children") as f:
                return [master] + [int(p) for p in f.read().split()]
        except OSError:
            return [master]

    def worker_pids(self):
        out = []
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if b"mochila-worker" in f.read().split(b"\0")[0]:
                        out.append(pid)
            except OSError:
                pass
        return out

    def stop(self, seconds=PATIENCE_S):
        """SIGTERM, as a service manager does it. Returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.show_logs()
            self.end_all()
            raise
        self.process = None
        return status

    def kill9(self):
        """All processes of the node at once, as a power cut has it (but for the page cache)."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGSTOP)  # so that nobody starts or notices anything meanwhile
            except ProcessLookupError:
                pass
        for pid in set(pids) | set(self.pids()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(PATIENCE_S)
        self.process = None
        for pid in pids[1:]:
            wait_for(f"the end of {pid}", lambda p=pid: not alive(p))

    def end_all(self):
        if self.process is not None:
            self.kill9()

    def remove(self):
        self.end_all()
        shutil.rmtree(self.dir, ignore_errors=True)

    def restart(self):
        self.stop()
        return self.start()

    # --- asking ---

    def cli(self, *args, check=True, timeout=PATIENCE_S):
        """`mochila args`: the completed process; with check it must have succeeded."""
        done = subprocess.run([f"{self.binaries}/mochila", "--socket", self.socket_path, *args],
                              capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)
        if check:
            assert done.returncode == 0, f"mochila {args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def api(self, verb, method="GET", check=True, **args):
        """The JSON answer; without check (status, answer)."""
        from urllib.parse import urlencode
        connection = UnixConnection(self.socket_path, PATIENCE_S)
        try:
            path = f"/v1/{verb}" + (f"?{urlencode(args)}" if args else "")
            connection.request(method, path)
            reply = connection.getresponse()
            body = reply.read().decode("utf-8", "surrogateescape")
        finally:
            connection.close()
        if check:
            assert reply.status == 200, f"{method} {path}: {reply.status} {body}"
            return json.loads(body)
        return reply.status, json.loads(body) if body else None

    def metrics(self):
        connection = UnixConnection(self.socket_path, PATIENCE_S)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stats(self):
        return self.api("stats")

    def ledger(self):
        return self.api("ledger")

    def wait_queue_empty(self, seconds=PATIENCE_S):
        return wait_for("an empty queue", lambda: (lambda l: l["queued"] == 0 and l)(self.ledger()),
                        seconds)

    # --- logs ---

    def log_text(self):
        out = []
        for path in [f"{self.dir}/stderr", *sorted(glob.glob(f"{self.dir}/log/*.log"))]:
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as f:
                    out.append(f.read())
            except OSError:
                pass
        return "".join(out)

    def event_lines(self):
        """The raw bytes of all event files, line by line."""
        out = []
        for path in sorted(glob.glob(f"{self.dir}/log/events-*.jsonl*")):
            with open(path, "rb") as f:
                out += f.read().split(b"\n")[:-1]
        return out

    def events(self, what=None, **fields):
        """Events in the order of their files; only those of one kind and with these values."""
        found = [json.loads(line) for line in self.event_lines()]
        return [e for e in found if (what is None or e["event"] == what) and
                all(e.get(k) == v for k, v in fields.items())]

    def wait_event(self, what, count=1, seconds=PATIENCE_S, **fields):
        return wait_for(f"{count} events {what} {fields}",
                        lambda: (lambda e: len(e) >= count and e)(self.events(what, **fields)),
                        seconds)

    def show_logs(self, lines=40):
        print("\n".join(self.log_text().splitlines()[-lines:]))

    @property
    def sanitized(self):
        """Built with ASan, which keeps freed memory for a while: its size says nothing."""
        with open(f"{self.binaries}/mochila-worker", "rb") as f:
            return b"__asan_init" in f.read()

    def assert_memory(self, pid, limit):
        """The process is not larger than so many bytes."""
        size = self.rss_bytes(pid)
        assert size < limit or self.sanitized, f"{size} bytes, not under {limit}"

    def rss_bytes(self, pid):
        with open(f"/proc/{pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is not None:
                self.show_logs()
            elif self.process is not None:
                self.stop()
        finally:
            self.remove()


def alive(pid):
    """True while the process exists; a zombie is dead."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
