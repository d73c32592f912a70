"""Hosts as network namespaces: what a cluster test, the demo and the bench of moves run in.

        a eth0 10.97.0.11 ----+                +---- out0 10.98.0.2 world: sink and load
        b eth0 10.97.0.12 ----+--br0-- r ------+     (the remote side, behind a router)
        lanes 10.97.1.1 ..         10.97.0.1   10.98.0.1

br0 is a bridge in a namespace of its own, the switch; the nodes speak to each other over it. IPv6 likewise:
fd97::11, fd97::1:1 .. for lanes, fd98::2. The names of the namespaces carry our process number; all are removed
at the end, also after a failure or a signal. Needs root and iproute2, and no Python beyond the standard library.
"""
import atexit
import json
import os
import shutil
import signal
import subprocess

SEGMENT4, SEGMENT6 = "10.97.0", "fd97:"
WORLD4, WORLD6 = "10.98.0.2", "fd98::2"
ROUTER4, ROUTER6 = "10.97.0.1", "fd97::1"


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def why_not():
    """Why there can be no hosts here; "" when there can."""
    if not shutil.which("ip"):
        return "needs iproute2"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
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


def lane_address(number):
    """The number-th lane, from 1: 10.97.1.1, ..., on the segment of the nodes."""
    return f"10.97.{1 + (number - 1) // 250}.{1 + (number - 1) % 250}"


def lane_address6(number):
    return f"fd97::1:{number:x}"


class Host:
    """One namespace."""

    def __init__(self, name, prefix):
        self.name, self.netns = name, f"{prefix}-{name}"
        run("ip", "netns", "add", self.netns)

    def ip(self, *words, check=True):
        return run("ip", "-n", self.netns, *words, check=check)

    def command(self, *words):
        return ["ip", "netns", "exec", self.netns, *words]

    def run(self, *words, check=True):
        return run(*self.command(*words), check=check)

    def start(self, *words, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.command(*words), **kw)

    def sysctl(self, **values):
        """net__ipv4__ip_forward=1; as many underscores as the path needs."""
        for path, value in values.items():
            self.run("sh", "-c", f"echo {value} >/proc/sys/{path.replace('__', '/')}")

    def addresses(self):
        """{address: interface}"""
        shown = json.loads(self.ip("-j", "addr", "show").stdout or "[]")
        return {a["local"]: link["ifname"] for link in shown for a in link.get("addr_info", ()) if "local" in a}


class Lab:
    count = 0

    def __init__(self, nodes=("a", "b")):
        Lab.count += 1  # what an earlier one could not remove must not stop us
        self.prefix = f"mo-{os.getpid()}-{Lab.count}"
        self.hosts, self.names = {}, list(nodes)
        self.pid = os.getpid()
        atexit.register(self.close)
        # A signal ends us by an exception, so that everybody's finally comes to its turn, and pytest ends.
        self.signals = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
        for s, had in self.signals.items():
            if had == signal.SIG_DFL:
                signal.signal(s, self.on_signal)
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def on_signal(number, _):
        signal.signal(number, signal.SIG_IGN)  # once: a second one would interrupt the cleaning
        raise KeyboardInterrupt

    def __getitem__(self, name):
        return self.hosts[name]

    @property
    def world(self):
        return self.hosts["world"]

    def add(self, name):
        host = self.hosts[name] = Host(name, self.prefix)
        host.ip("link", "set", "lo", "up")
        return host

    def build(self):
        switch = self.add("switch")
        switch.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        switch.ip("link", "set", "br0", "up")
        self.build_router()
        for i, name in enumerate(self.names):
            self.build_node(name, i + 11)

    def plug(self, host, port):
        """A cable from the host's eth0 to the switch."""
        switch = self.hosts["switch"]
        host.ip("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch.netns)
        switch.ip("link", "set", port, "master", "br0", "up")
        host.ip("link", "set", "eth0", "up")

    def build_router(self):
        router, world = self.add("r"), self.add("world")
        self.plug(router, "p-r")
        router.ip("link", "add", "out0", "type", "veth", "peer", "name", "out0", "netns", world.netns)
        for host, interface, *addresses in (
                (router, "eth0", f"{ROUTER4}/16", f"{ROUTER6}/64"),
                (router, "out0", "10.98.0.1/24", "fd98::1/64"),
                (world, "out0", f"{WORLD4}/24", f"{WORLD6}/64")):
            host.ip("link", "set", interface, "up")
            for address in addresses:
                more = ("nodad",) if ":" in address else ()
                host.ip("addr", "add", address, "dev", interface, *more)
        router.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        world.ip("route", "add", "default", "via", "10.98.0.1")
        world.ip("-6", "route", "add", "default", "via", "fd98::1")

    def build_node(self, name, number):
        host = self.add(name)
        self.plug(host, f"p-{name}")
        host.ip("addr", "add", f"{SEGMENT4}.{number}/16", "dev", "eth0")
        host.ip("addr", "add", f"fd97::{number}/64", "dev", "eth0", "nodad")
        host.ip("route", "add", "default", "via", ROUTER4)
        host.ip("-6", "route", "add", "default", "via", ROUTER6)

    def number(self, name):
        return 11 + self.names.index(name)

    def address(self, name):
        return f"{SEGMENT4}.{self.number(name)}"

    def address6(self, name):
        return f"fd97::{self.number(name)}"

    # --- trouble ---

    def cut(self, name):
        """No packet passes between the node and the others, in silence; the world still reaches all."""
        self.routes(name, "add")

    def heal(self, name):
        self.routes(name, "del")

    def routes(self, name, verb):
        for other in self.names:
            if other != name:
                self.hosts[name].ip("route", verb, "blackhole", f"{self.address(other)}/32")
                self.hosts[other].ip("route", verb, "blackhole", f"{self.address(name)}/32")

    def slow(self, name, rate="10mbit"):
        """All that goes to and from the node; rate None: as fast as it can."""
        for host, device in ((self.hosts["switch"], f"p-{name}"), (self.hosts[name], "eth0")):
            run("tc", "-n", host.netns, "qdisc", "del", "dev", device, "root", check=False)
            if rate is not None:
                run("tc", "-n", host.netns, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate,
                    "burst", "32k", "latency", "100ms")

    def take_address(self, address):
        """A stranger on the segment has it."""
        stranger = self.hosts.get("stranger")
        if stranger is None:
            stranger = self.add("stranger")
            self.plug(stranger, "p-str")
        stranger.ip("addr", "add", f"{address}/16", "dev", "eth0")
        return stranger

    def holders(self, address):
        """Names of the nodes that have the address on the segment, tails on lo apart."""
        return [n for n in self.names if self.hosts[n].addresses().get(address) == "eth0"]

    def close(self):
        if os.getpid() != self.pid:
            return
        for host in self.hosts.values():
            run("ip", "netns", "del", host.netns, check=False)
        self.hosts.clear()
        for s, had in self.signals.items():
            if signal.getsignal(s) == self.on_signal:
                signal.signal(s, had)
        self.signals = {}
        atexit.unregister(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
