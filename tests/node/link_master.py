"""A master for one mochila-link process: opens streams on the control channel, sends numbered frames,
acknowledges, and checks that what comes from the peers is each frame once and in order, however often links die
in between. Hands out descriptors of carriers (carrier_worker.py) too."""
import collections
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import control_wire as wire

BUILD = os.path.join(wire.ROOT, os.environ.get("MOCHILA_BIN", "build/debug"))
LINK = os.path.join(BUILD, "mochila-link")
CLI = os.path.join(BUILD, "mochila")
OPEN, SEND, ACK, UP, DOWN, RECEIVED, ACKED, WANT = range(1, 9)
CONTROL = 0
WINDOW = 4 << 20


def payload(sender, channel, seq, size):
    head = struct.pack("<QB", seq, channel) + sender.encode()
    return head + bytes([seq % 251]) * (size - len(head))


class Channel:
    """Where one node's two streams with a peer stand; all that the master of a real node has in its log."""

    def __init__(self, channel, size):
        self.channel, self.size = channel, size
        self.stream = int.from_bytes(os.urandom(4), "little") | 1
        self.next, self.acked, self.target = 1, 0, 0
        self.peer_stream = self.received = self.durable = self.told = 0
        self.up = False
        self.ups = self.wants = 0
        self.full = False


class LinkMaster:
    def __init__(self, name, directory, config, netns=None, size=20000, peers=("a", "b")):
        self.name, self.dir, self.config, self.netns = name, str(directory), config, netns
        os.makedirs(self.dir, exist_ok=True)
        self.log_path = os.path.join(self.dir, "link.log")
        self.channels = {(p, CONTROL): Channel(CONTROL, size) for p in peers if p != name}
        self.errors, self.incarnation, self.ready, self.bytes_in = [], 0, False, 0
        self.acks, self.hangs = True, False
        self.lock = threading.RLock()
        self.process = self.sock = None
        self.out = collections.deque()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    # The process.
    def start(self):
        with self.lock:
            self.incarnation += 1
            self.ready = False
            self.out.clear()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            high = [os.dup(theirs.fileno()), os.dup(log)]
            high = [fd if fd > 10 else os.dup2(fd, fd + 40) for fd in high]

            def place():
                os.dup2(high[0], 3)
                os.dup2(high[1], 4)

            command = (["ip", "netns", "exec", self.netns] if self.netns else []) + [LINK]
            self.process = subprocess.Popen(command, preexec_fn=place, close_fds=False,
                                            stderr=open(self.log_path, "ab"))
            for fd in high + [log]:
                os.close(fd)
            theirs.close()
            fd = os.memfd_create("config")
            os.write(fd, self.config.encode())
            body = (wire.number(1, 1) + wire.number(2, 0) + wire.number(3, 1) + wire.number(4, 1) +
                    wire.data(9, "mochila.yaml") + wire.number(13, self.incarnation) + wire.number(14, 1))
            wire.send(ours, wire.data(2, body), [fd])
            os.close(fd)
            for (peer, number), c in self.channels.items():
                c.up, c.next, c.full, c.told = False, c.acked + 1, False, c.durable
                self.out.append((self.frame(OPEN, peer, number, stream=c.stream, seq=c.next,
                                            peer_stream=c.peer_stream, received=c.received,
                                            durable=c.durable), None))
            ours.setblocking(False)
            self.sock = ours
        return self

    def kill(self, number=signal.SIGKILL):
        with self.lock:
            self.process.send_signal(number)
            self.process.wait(10)
            self.sock.close()
            self.sock = None

    def close(self):
        self.stop.set()
        self.thread.join(5)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.sock:
            self.sock.close()

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    # Frames.
    @staticmethod
    def frame(op, peer, channel, stream=0, seq=0, peer_stream=0, received=0, durable=0, body=b""):
        m = wire.number(1, op) + wire.data(2, peer) + wire.number(3, channel)
        for field, value in ((4, stream), (5, seq), (6, peer_stream), (7, received), (8, durable)):
            m += wire.number(field, value)
        return wire.data(11, m + wire.data(11, body))

    def take(self, frame):
        kind, m = wire.decode(frame)
        if kind == "ready":
            self.ready = True
        if kind != "link":
            return
        op, peer, number, seq = m[1][0], m[2][0].decode(), m[3][0], m[5][0]
        c = self.channels[peer, number]
        if op == UP:
            c.up, c.ups = True, c.ups + 1
            if m[6][0] != c.peer_stream:
                c.peer_stream, c.received, c.durable, c.told = m[6][0], 0, 0, 0
        elif op == DOWN:
            c.up = False
        elif op == ACKED:
            c.acked, c.full = max(c.acked, seq), False
        elif op == WANT:
            c.next, c.wants, c.full = seq, c.wants + 1, True
            c.full = m[12][0] == b"full"
        elif op == RECEIVED:
            self.received(peer, c, seq, m[11][0])

    def received(self, peer, c, seq, body):
        if seq != c.received + 1:
            self.errors.append(f"{self.name} from {peer}.{c.channel}: {seq} after {c.received}")
        if body != payload(peer, c.channel, seq, len(body)) or len(body) != c.size:
            self.errors.append(f"{self.name} from {peer}.{c.channel}: {seq} is damaged")
        c.received = seq
        self.bytes_in += len(body)

    def fill(self):
        """Acknowledges what came, and puts as many frames as the window allows into the queue."""
        for (peer, number), c in self.channels.items():
            if self.acks:
                c.durable = c.received
            if c.durable != c.told:
                c.told = c.durable
                self.out.append((self.frame(ACK, peer, number, stream=c.peer_stream, seq=c.durable), None))
            while (c.next <= c.target and not c.full and len(self.out) < 200 and
                   (c.next - c.acked) * c.size < WINDOW):
                body = payload(self.name, number, c.next, c.size)
                self.out.append((self.frame(SEND, peer, number, seq=c.next, body=body), None))
                c.next += 1

    def serve(self):
        while not self.stop.is_set():
            with self.lock:
                sock = self.sock
                if sock is not None and not self.hangs:
                    self.turn(sock)
            if sock is None or self.hangs:
                time.sleep(0.005)
                continue
            try:
                select.select([sock], [sock] if self.out else [], [], 0.01)
            except (OSError, ValueError):
                time.sleep(0.001)

    def turn(self, sock):
        try:
            for _ in range(200):
                frame = sock.recv(1 << 17)
                if not frame:
                    return
                self.take(frame)
        except BlockingIOError:
            pass
        except OSError:
            return
        self.fill()
        try:
            while self.out:
                frame, fd = self.out[0]
                wire.send(sock, frame, [fd.fileno()] if fd else [])
                self.out.popleft()
                if fd:
                    fd.close()
        except OSError:
            pass

    # For tests.
    def carrier(self, slot, sock):
        """Gives the link its end of the stream to the worker of this slot."""
        with self.lock:
            self.out.append((wire.data(12, wire.number(1, slot)), sock))

    def send(self, peer, channel, count):
        with self.lock:
            self.channels[peer, channel].target += count

    def all_up(self):
        return all(c.up for c in self.channels.values())

    def all_acked(self):
        return all(c.acked >= c.target for c in self.channels.values())


def config(name, run, listen, peers, pki, source=None):
    peer_text = ", ".join(f'{p}: "{e}"' for p, e in peers.items())
    return (f"node: {name}\nhostname: {name}.example\nspool: {run}/spool\nrun: {run}\nlog: \"\"\n"
            f"pools: {{main: {{home: {name}, lanes: [{{address: 127.0.0.99, ehlo: t.example}}]}}}}\n"
            "listen: [{address: 127.0.0.1, port: 2525}]\n"
            f'cluster: {{name: west, listen: "{listen}", peers: {{{peer_text}}}, ca: {pki}/ca.pem, '
            f"certificate: {pki}/node.pem, key: {pki}/node.key"
            + (f", source: {source}" if source else "") + "}\n")


def cluster(*args):
    return subprocess.run([CLI, "cluster", *args], check=True, capture_output=True, text=True).stdout
