"""A worker's end of a carrier, by hand: frames of proto/carrier_frame.h over the stream socket to mochila-link."""
import os
import select
import socket
import struct
import threading
import time

DATA, UP, DOWN = 1, 2, 3
HEAD = struct.Struct("<IIII32s")


def frame(op, slot, node, wave, payload=b""):
    return HEAD.pack(op, slot, len(payload), wave, node.encode()) + payload


class CarrierWorker:
    """Collects what comes; sends what a test wants, while the link takes it."""

    def __init__(self, master, slot):
        self.master, self.slot = master, slot
        self.waves, self.events, self.frames = {}, [], []
        self.lock = threading.Lock()
        self.reads = True
        self.sock = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def attach(self):
        """A new pair of sockets; the other end goes to the link."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for s in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                s.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
            s.setblocking(False)
        with self.lock:
            if self.sock:
                self.sock.close()
            self.sock, self.buffer, self.out = ours, b"", bytearray()
            self.waves.clear()
        self.master.carrier(self.slot, theirs)
        return self

    def close(self):
        self.stop.set()
        self.thread.join(5)
        with self.lock:
            if self.sock:
                self.sock.close()
                self.sock = None

    def send(self, node, slot, payload):
        """False: the node is not up."""
        with self.lock:
            wave = self.waves.get(node)
            if wave is None or self.sock is None:
                return False
            self.out += frame(DATA, slot, node, wave, payload)
        return True

    def raw(self, data):
        with self.lock:
            self.out += data

    def waiting(self):
        return len(self.out)

    def take(self):
        """Whole frames out of the buffer."""
        at = 0
        while len(self.buffer) - at >= HEAD.size:
            op, slot, size, wave, node = HEAD.unpack_from(self.buffer, at)
            if len(self.buffer) - at < HEAD.size + size:
                break
            node = node.rstrip(b"\0").decode()
            payload = self.buffer[at + HEAD.size:at + HEAD.size + size]
            at += HEAD.size + size
            if op == UP:
                self.waves[node] = wave
                self.events.append(("up", node))
            elif op == DOWN:
                self.waves.pop(node, None)
                self.events.append(("down", node))
            else:
                self.events.append(("data", node, slot, payload))
        self.buffer = self.buffer[at:]

    def turn(self):
        if self.out:
            try:
                del self.out[:self.sock.send(self.out[:1 << 20])]
            except BlockingIOError:
                pass
        if self.reads:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                raise OSError("end of file")
            self.buffer += data
            self.take()

    def serve(self):
        while not self.stop.is_set():
            with self.lock:
                sock = self.sock
                if sock is not None:
                    try:
                        self.turn()
                    except OSError:
                        self.events.append(("lost",))
                        self.sock.close()
                        self.sock = sock = None
                wants = bool(self.out) if sock else False
            try:
                if sock is None or not self.reads and not wants:
                    time.sleep(0.005)
                else:
                    select.select([sock] if self.reads else [], [sock] if wants else [], [], 0.01)
            except (OSError, ValueError):
                time.sleep(0.001)

    # For tests.
    def up(self, node):
        return node in self.waves

    def data(self, since=0):
        """(sender's slot, payload) of all frames after so many events."""
        return [e[2:] for e in self.events[since:] if e[0] == "data"]

    def count(self, *event):
        return self.events.count(event)
