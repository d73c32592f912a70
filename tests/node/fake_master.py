"""A master for one mochila-api process: START, answers by table, and nothing else."""
import json
import os
import select
import socket
import subprocess
import threading
import time

import control_wire as wire

BUILD = os.path.join(wire.ROOT, os.environ.get("MOCHILA_BIN", "build/debug"))
API = os.path.join(BUILD, "mochila-api")
CLI = os.path.join(BUILD, "mochila")


def memfd(text):
    fd = os.memfd_create("config")
    os.write(fd, text.encode())
    return fd


class Master:
    """answers: {verb: f(args) -> [(slot or None, status, object)] or None for silence}"""

    def __init__(self, directory, workers=2, extra=""):
        self.dir = str(directory)
        self.socket_path = os.path.join(self.dir, "api.sock")
        self.log_dir = os.path.join(self.dir, "log")
        self.stderr = os.path.join(self.dir, "api.log")
        os.makedirs(self.log_dir, exist_ok=True)
        self.pages = [wire.StatsPage() for _ in range(workers)]
        self.generation = 0
        self.answers = {}
        self.queries = []
        self.chunk = 50000
        self.extra = extra
        self.lanes = [(1, "192.0.2.10"), (2, "192.0.2.11")]
        self.ready = []
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.process = spawn_api(theirs, log)
        os.close(log)
        theirs.close()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def config(self, socket_path=None, extra=None):
        return ("node: t\nhostname: t.example\nspool: %s/spool\nrun: %s\nlog: %s\n"
                "pools: {main: {lanes: [{address: 127.0.0.1, ehlo: t.example}]}}\n"
                "listen: [{address: 127.0.0.1, port: 2525}]\n"
                "api: {socket: %s%s}\n" % (self.dir, self.dir, self.log_dir,
                                           socket_path or self.socket_path,
                                           self.extra if extra is None else extra))

    def start(self, socket_path=None, extra=None, split=False):
        self.generation += 1
        fds = [memfd(self.config(socket_path, extra))] + [p.fd for p in self.pages]
        if split:
            wire.send(self.sock, wire.start(self.generation, lanes=self.lanes[:1], last=False), fds)
            wire.send(self.sock, wire.start(self.generation, lanes=self.lanes[1:]))
        else:
            wire.send(self.sock, wire.start(self.generation, lanes=self.lanes), fds)
        os.close(fds[0])
        return self.wait_ready(self.generation)

    def wait_ready(self, generation, seconds=5):
        end = time.time() + seconds
        while time.time() < end and generation not in self.ready:
            if self.process.poll() is not None:
                return False
            time.sleep(0.005)
        return generation in self.ready

    def serve(self):
        while not self.stop.is_set():
            if not select.select([self.sock], [], [], 0.05)[0]:
                continue
            try:
                frame = self.sock.recv(1 << 16)
            except OSError:
                return
            if not frame:
                return
            kind, m = wire.decode(frame)
            if kind == "ready":
                assert m[1][0] == self.process.pid
                self.ready.append(m[2][0])
            if kind == "query":
                self.on_query(m[1][0], m[2][0].decode(), [a.decode() for a in m.get(3, [])])

    def on_query(self, query_id, verb, args):
        self.queries.append((verb, args))
        handler = self.answers.get(verb)
        parts = handler(dict(a.split("=", 1) for a in args)) if handler else None
        if parts is None:
            return
        own = False
        for slot, status, obj in parts:
            body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
            pieces = [body[i:i + self.chunk] for i in range(0, len(body), self.chunk)] or [b""]
            for i, piece in enumerate(pieces):
                wire.send(self.sock, wire.answer(query_id, piece, i + 1 == len(pieces), status, slot))
            own = own or slot is None
        if not own:
            wire.send(self.sock, wire.answer(query_id, b"", True, 200))

    def hang_up(self):
        self.stop.set()
        self.thread.join()
        self.sock.close()

    def close(self):
        self.hang_up()
        try:
            self.process.wait(5)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for p in self.pages:
                os.close(p.fd)

    def log(self):
        with open(self.stderr) as f:
            return f.read()


def spawn_api(control, log):
    """mochila-api with the control socket as 3 and the log as 4."""
    c, l = control.fileno(), log

    def fix():
        high_c, high_l = os.dup(c), os.dup(l)
        while high_c < 10:
            high_c = os.dup(c)
        while high_l < 10:
            high_l = os.dup(l)
        os.dup2(high_c, 3)
        os.dup2(high_l, 4)
        os.closerange(5, 256)

    return subprocess.Popen([API], preexec_fn=fix, close_fds=False)


def cli(*args, socket_path=None, stdin=subprocess.DEVNULL, env=None, timeout=30):
    """(status, stdout, stderr) of the mochila command."""
    full = dict(os.environ, TERM="dumb")
    full.pop("MOCHILA_SOCKET", None)
    full.update(env or {})
    argv = [CLI] + (["--socket", socket_path] if socket_path else []) + list(args)
    r = subprocess.run(argv, stdin=stdin, capture_output=True, env=full, timeout=timeout)
    return r.returncode, r.stdout.decode(), r.stderr.decode()
