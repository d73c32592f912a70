"""mochila-netd as its master sees it: frames of proto/netd.proto by hand, and the process itself."""
import os
import select
import socket
import subprocess
import time

from control_wire import data, fields, number
from mochila_node import BIN

ACTIONS = {"prepare": 1, "release": 2, "acquire": 3, "verify": 4, "end_tail": 5}
DRIVERS = {"none": 1, "l2": 2, "exec": 3}
RESULTS = {1: "ok", 2: "retry", 3: "failed"}
WHAT = {1: "gone", 2: "clash"}


def packed(address):
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def held(lane, address, epoch, interface="eth0", tail=False, driver="l2", peer=None, ports=None):
    out = (number(1, lane) + number(2, epoch) + data(3, packed(address)) + data(4, interface) +
           number(5, DRIVERS[driver]) + number(6, int(tail)))
    if peer:
        out += data(7, packed(peer)) + number(8, ports[0]) + number(9, ports[1])
    return out


class Netd:
    """One mochila-netd; `namespace`: a network namespace made by `ip netns add`, or None: here."""

    def __init__(self, namespace, log, holding=(), hook="", hook_ms=5000, uid=0, gid=0):
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ours
        self.notices, self.answers, self.next_id = [], {}, 1
        self.log_path = log
        enter = ["ip", "netns", "exec", namespace] if namespace else []

        def place():
            # What the master does: 3 is the control socket, 4 the log.
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            high_log, high = os.dup2(fd, 101), os.dup2(its.fileno(), 100)
            os.dup2(high, 3)
            os.dup2(high_log, 4)
            os.dup2(high_log, 2)

        self.process = subprocess.Popen(enter + [os.path.join(BIN, "mochila-netd")], preexec_fn=place,
                                        pass_fds=(3, 4), stdin=subprocess.DEVNULL)
        its.close()
        start = number(1, 1) + number(2, uid) + number(3, gid) + data(4, hook) + number(5, hook_ms)
        for one in holding:
            start += data(6, one)
        ours.send(data(1, start + number(7, 1)))
        self.ready = None
        self.wait(lambda: self.ready is not None, "READY")

    def read(self, timeout):
        if not select.select([self.control], [], [], timeout)[0]:
            return
        frame = self.control.recv(65536)
        assert frame, f"netd has ended: {self.log()}"
        [(kind, body)] = fields(frame)
        body = dict(fields(body))
        if kind == 3:
            self.ready = {"version": body[1], "pid": body[2], "dropped": body.get(3, 0)}
        elif kind == 4:
            self.answers[body[1]] = (RESULTS[body[2]], body.get(3, b"").decode(), body[4])
        elif kind == 5:
            self.notices.append((WHAT[body[1]], body.get(2, 0), body.get(4, b"").decode()))

    def wait(self, condition, what, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"no {what}; log: {self.log()}"
            self.read(0.05)

    def send(self, action, lane, address, epoch, driver="l2", interface="eth0", tail=False, peer=None,
             ports=None, deadline_ms=5000, probe_ms=0):
        ident = self.next_id
        self.next_id += 1
        out = (number(1, ident) + number(2, ACTIONS[action]) + number(3, DRIVERS[driver]) +
               number(4, lane) + number(5, epoch) + data(6, packed(address)) + data(7, interface) +
               data(8, "pool") + data(9, "a") + data(10, "b") + number(11, int(tail)))
        if peer:
            out += data(12, packed(peer))
        if ports:
            out += number(13, ports[0]) + number(14, ports[1])
        self.control.send(data(2, out + number(15, deadline_ms) + number(16, probe_ms)))
        return ident

    def answer(self, ident, timeout=20):
        self.wait(lambda: ident in self.answers, "answer", timeout)
        return self.answers.pop(ident)

    def ask(self, *args, **kw):
        """(result, reason) of one request."""
        return self.answer(self.send(*args, **kw))[:2]

    def log(self):
        try:
            with open(self.log_path) as f:
                return f.read()[-3000:]
        except FileNotFoundError:
            return ""

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.control.close()

    def terminate(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.control.close()
        return code
