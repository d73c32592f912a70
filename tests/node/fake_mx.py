"""A scripted mail exchanger: answers as a test says and records every octet.

    def script(c, verb, line):
        if verb == "RCPT" and c.number == 0:
            return "450 4.7.1 later"
        return None                       # as usual

    with FakeMX(script, offers=("PIPELINING", "8BITMIME")) as mx:
        ... deliver to mx.address ...
        message = mx.wait_messages(1)[0]
        assert message.body == b"..."

verb is one of: CONNECT, EHLO, HELO, MAIL, RCPT, DATA, DOT, BDAT, LAST (the last chunk), RSET, NOOP,
QUIT, VRFY, or what else came. What the script returns: None (as usual), text of a reply (CRLF is
added; lines of more than one are separated by \\n; bytes are sent as they stand), or one of Close(),
Reset(), Hang(), Delay(seconds, then).
"""
import socket
import struct
import threading
import time

from mochila_node import PATIENCE_S, wait_for

ALL_OFFERS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING",
              "SMTPUTF8")


class Close:
    """Ends the connection, after `reply` if there is one."""

    def __init__(self, reply=None):
        self.reply = reply


class Reset:
    """RST at once."""


class Hang:
    """Says nothing and reads nothing, until the test ends."""


class Delay:
    def __init__(self, seconds, then=None):
        self.seconds, self.then = seconds, then


class Gone(Exception):
    pass


class Message:
    """What one transaction brought. `wire` as it came (dots doubled by DATA), `body` without."""

    def __init__(self, connection, mail, rcpts):
        self.connection = connection
        self.mail, self.rcpts = mail, list(rcpts)
        self.by = None       # DATA or BDAT
        self.chunks = []     # sizes of BDAT
        self.wire = b""
        self.reply = None    # to the dot, as sent
        self.time = None

    @property
    def sender(self):
        return path_of(self.mail)

    @property
    def recipients(self):
        return [path_of(r) for r in self.rcpts]

    @property
    def body(self):
        if self.by == "BDAT":
            return self.wire
        lines = self.wire.split(b"\r\n")
        return b"\r\n".join(x[1:] if x.startswith(b".") else x for x in lines)

    @property
    def accepted(self):
        return self.reply is not None and self.reply.startswith(b"2")

    def split(self):
        """(our Received field with its CRLF, the rest)."""
        body = self.body
        assert body.lower().startswith(b"received:"), body[:80]
        at = 0
        while True:
            at = body.index(b"\r\n", at) + 2
            if body[at:at + 1] not in (b" ", b"\t"):
                return body[:at], body[at:]


def path_of(line):
    """What stands in <> of a MAIL or RCPT line."""
    start, end = line.index(b"<"), line.rindex(b">")
    return line[start + 1:end].decode("utf-8")


class Connection:
    """One connection: `number` counts from 0 over the whole exchanger, `commands` are (time, line)."""

    def __init__(self, mx, sock, peer, number):
        self.mx, self.socket, self.number = mx, sock, number
        self.source, self.source_port = peer[0], peer[1]
        self.opened = time.monotonic()
        self.closed = None
        self.commands = []
        self.received = 0       # octets
        self.input = b""
        self.esmtp = False
        self.mail, self.rcpts, self.message = None, [], None
        self.state = {}         # of the script

    @property
    def lines(self):
        return [line for _, line in self.commands]

    def count(self, verb):
        return sum(1 for line in self.lines if line[:4].upper().decode("latin-1") == verb)

    # --- octets ---

    def fill(self):
        try:
            more = self.socket.recv(1 << 18)
        except OSError:
            raise Gone from None
        if not more:
            raise Gone
        self.received += len(more)
        return more

    def line(self):
        while b"\r\n" not in self.input:
            self.input += self.fill()
        line, _, self.input = self.input.partition(b"\r\n")
        return line

    def exactly(self, n):
        parts, have = [self.input], len(self.input)
        while have < n:
            parts.append(self.fill())
            have += len(parts[-1])
        octets = b"".join(parts)
        self.input = octets[n:]
        return octets[:n]

    def until_dot(self):
        """The message up to CRLF.CRLF, which an empty message may begin with .CRLF of."""
        octets = bytearray(b"\r\n" + self.input)
        seek = 0
        while True:
            at = octets.find(b"\r\n.\r\n", seek)
            if at >= 0:
                self.input = bytes(octets[at + 5:])
                return bytes(octets[2:at + 2])
            seek = max(0, len(octets) - 4)
            octets += self.fill()

    def put(self, reply):
        if isinstance(reply, str):
            lines = reply.split("\n")
            reply = b"".join(f"{x[:3]}-{x[4:]}\r\n".encode() for x in lines[:-1])
            reply += lines[-1].encode() + b"\r\n"
        try:
            self.socket.sendall(reply)
        except OSError:
            raise Gone from None
        return reply

    # --- answers ---

    def answer(self, verb, line, usual):
        """What the script says, or the usual; returns the octets of the reply."""
        action = self.mx.script(self, verb, line) if self.mx.script else None
        while isinstance(action, Delay):
            if self.mx.ending.wait(action.seconds):
                raise Gone
            action = action.then
        if isinstance(action, Hang):
            self.mx.ending.wait()
            raise Gone
        if isinstance(action, Reset):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Gone
        if isinstance(action, Close):
            if action.reply is not None:
                self.put(action.reply)
            raise Gone
        return self.put(usual if action is None else action)

    def forget(self):
        self.mail, self.rcpts, self.message = None, [], None

    def run(self):
        self.answer("CONNECT", b"", f"220 {self.mx.name} ESMTP fake")
        while True:
            line = self.line()
            self.commands.append((time.monotonic(), line))
            verb = line.split(b" ")[0].upper().decode("latin-1")
            getattr(self, f"on_{verb.lower()}", self.on_other)(verb, line)

    def on_other(self, verb, line):
        self.answer(verb, line, "500 5.5.1 not known")

    def on_ehlo(self, verb, line):
        self.forget()
        usual = "\n".join(f"250 {x}" for x in (self.mx.name, *self.mx.offers))
        self.esmtp = self.answer(verb, line, usual).startswith(b"2")

    def on_helo(self, verb, line):
        self.forget()
        self.answer(verb, line, f"250 {self.mx.name}")

    def on_mail(self, verb, line):
        if self.answer(verb, line, "250 2.1.0 ok").startswith(b"2"):
            self.mail = line

    def on_rcpt(self, verb, line):
        if self.answer(verb, line, "250 2.1.5 ok").startswith(b"2"):
            self.rcpts.append(line)

    def on_rset(self, verb, line):
        self.forget()
        self.answer(verb, line, "250 2.0.0 ok")

    def on_noop(self, verb, line):
        self.answer(verb, line, "250 2.0.0 ok")

    def on_vrfy(self, verb, line):
        self.answer(verb, line, "252 2.0.0 perhaps")

    def on_quit(self, verb, line):
        self.answer(verb, line, "221 2.0.0 bye")
        raise Gone

    def finish(self, by, verb, line):
        message, self.message = self.message, None
        message.by, message.time = by, time.monotonic()
        number = self.mx.take(message)
        try:
            message.reply = self.answer(verb, line, f"250 2.0.0 taken as {number}")
        finally:
            self.forget()

    def on_data(self, verb, line):
        usual = "354 go on" if self.rcpts else "503 5.5.1 no recipients"
        if not self.answer(verb, line, usual).startswith(b"3"):
            return
        self.message = Message(self, self.mail, self.rcpts)
        self.message.wire = self.until_dot()
        self.finish("DATA", "DOT", line)

    def on_bdat(self, verb, line):
        words = line.upper().split()
        octets = self.exactly(int(words[1]))
        if not self.rcpts:
            self.answer(verb, line, "503 5.5.1 no recipients")
            return
        if self.message is None:
            self.message = Message(self, self.mail, self.rcpts)
        self.message.chunks.append(len(octets))
        self.message.wire += octets
        if words[-1] == b"LAST":
            self.finish("BDAT", "LAST", line)
        else:
            self.answer(verb, line, "250 2.0.0 chunk")


class FakeMX:
    def __init__(self, script=None, offers=ALL_OFFERS, address="127.0.0.1", port=0,
                 name="mx.fake.test", receive_buffer=None):
        self.script, self.offers, self.name = script, list(offers), name
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.connections, self.messages, self.threads = [], [], []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind((address, port))
        self.listener.listen(512)
        self.host, self.port = address, self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    @property
    def address(self):
        """As a route's `via`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def accept(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or 40 ms for each message
            with self.lock:
                connection = Connection(self, sock, peer, len(self.connections))
                self.connections.append(connection)
            thread = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, connection):
        try:
            connection.run()
        except Gone:
            pass
        finally:
            connection.closed = time.monotonic()
            connection.socket.close()

    def take(self, message):
        """Every message whose end has come, whatever is answered to it."""
        with self.lock:
            self.messages.append(message)
            return len(self.messages)

    @property
    def accepted(self):
        with self.lock:
            return [m for m in self.messages if m.accepted]

    def wait_messages(self, count, seconds=PATIENCE_S):
        """At least so many accepted messages."""
        return wait_for(f"{count} messages at {self.address}",
                        lambda: (lambda m: len(m) >= count and m)(self.accepted), seconds)

    def of(self, rcpt):
        """All messages, accepted or not, with this recipient."""
        with self.lock:
            return [m for m in self.messages if rcpt in m.recipients]

    def wait_of(self, rcpt, count=1, seconds=PATIENCE_S):
        """The message to this recipient; a list when more than one is asked for."""
        found = wait_for(f"{count} messages to {rcpt}",
                         lambda: (lambda m: len(m) >= count and m)(
                             [m for m in self.of(rcpt) if m.accepted]), seconds)
        assert len(found) == count, f"{len(found)} messages to {rcpt}, not {count}"
        return found[0] if count == 1 else found

    def wait_connections(self, count, seconds=PATIENCE_S):
        return wait_for(f"{count} connections to {self.address}",
                        lambda: len(self.connections) >= count and list(self.connections), seconds)

    def close(self):
        self.ending.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            connections = list(self.connections)
        for c in connections:
            try:
                c.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(5)
        self.thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
