"""A byte-exact SMTP talker: sends just the octets it is told, and reads replies with their times.

Bare CR, bare LF, NUL, one octet per segment, half a command, no reads at all: what a line-oriented
client library will not do.
"""
import socket
import struct
import time


class Reply:
    """One reply, all its lines. `raw` is what came, octet for octet."""

    def __init__(self, raw):
        self.raw = raw
        self.time = time.monotonic()
        assert raw.endswith(b"\r\n"), raw
        self.lines = raw[:-2].split(b"\r\n")
        for i, line in enumerate(self.lines):
            last = i == len(self.lines) - 1
            assert b"\r" not in line and b"\n" not in line, raw
            assert len(line) + 2 <= 512, f"a reply line of {len(line) + 2} octets: {raw}"
            assert line[:3].isdigit() and line[3:4] == (b" " if last else b"-"), raw
            assert all(0x20 <= c < 0x7f for c in line), raw
            assert line[:3] == self.lines[0][:3], raw
        self.code = int(self.lines[0][:3])

    @property
    def text(self):
        return "\n".join(line[4:].decode("ascii") for line in self.lines)

    @property
    def enhanced(self):
        """The enhanced status code, the same on every line (RFC 2034 4), or None."""
        found = set()
        for line in self.lines:
            word = line[4:].split(b" ")[0]
            parts = word.split(b".")
            is_code = len(parts) == 3 and all(p.isdigit() for p in parts)
            found.add(word.decode() if is_code else None)
        assert len(found) == 1, self.raw
        return found.pop()

    def __repr__(self):
        return f"Reply({self.raw!r})"


class Closed(Exception):
    """The connection ended where a reply was awaited; `rest` is what had come of it."""

    def __init__(self, rest, reset=False):
        super().__init__(f"closed{' by a reset' if reset else ''} after {rest!r}")
        self.rest = rest
        self.reset = reset


class Talker:
    # Every reply that any test sees is judged: see check().
    NO_CODE = {"greeting", "EHLO", "HELO"}

    def __init__(self, address, source=None, timeout=20, greeting=True, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self.input = b""
        self.replies = []
        self.greeting = self.reply("greeting") if greeting else None

    # --- octets ---

    def send(self, octets):
        if isinstance(octets, str):
            octets = octets.encode("utf-8")
        self.socket.sendall(octets)
        return self

    def send_singly(self, octets, pause=0):
        """Each octet in a segment of its own."""
        for i in range(len(octets)):
            self.socket.sendall(octets[i:i + 1])
            if pause:
                time.sleep(pause)

    def read_line(self):
        while b"\r\n" not in self.input:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                raise Closed(self.input, reset=True) from None
            if not more:
                raise Closed(self.input)
            self.input += more
        line, _, self.input = self.input.partition(b"\r\n")
        return line + b"\r\n"

    def reply(self, to="command"):
        raw = self.read_line()
        while raw[raw.rfind(b"\r\n", 0, -2) + 2 if b"\r\n" in raw[:-2] else 0:][3:4] == b"-":
            raw += self.read_line()
        reply = Reply(raw)
        self.replies.append(reply)
        self.check(reply, to)
        return reply

    def check(self, reply, to):
        """EXT-05: a code of the reply's class on all but greeting, EHLO, HELO and 3xx."""
        verb = to.split(" ")[0].upper() if to != "greeting" else to
        bare = reply.code // 100 == 3 or (reply.code // 100 == 2 and
                                          (verb in self.NO_CODE or to == "any"))
        if bare and to != "any":
            assert reply.enhanced is None, f"{to!r}: {reply}"
        elif not bare:
            assert reply.enhanced is not None, f"no enhanced code: {to!r}: {reply}"
        if reply.enhanced is not None:
            assert reply.enhanced[0] == str(reply.code)[0], f"{to!r}: {reply}"

    def no_reply(self, seconds=0.3):
        """True when nothing comes for so long."""
        if self.input:
            return False
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self.input += self.socket.recv(65536)
            return False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)

    def closed(self):
        """True when the server ends the connection now and says nothing more."""
        try:
            while True:
                more = self.socket.recv(65536)
                if not more:
                    return not self.input
                self.input += more
        except ConnectionResetError:
            return not self.input

    # --- commands ---

    def cmd(self, line):
        """Sends the line with CRLF; the reply."""
        octets = line.encode("utf-8") if isinstance(line, str) else line
        self.send(octets + b"\r\n")
        return self.reply(octets.split(b"\r")[0].decode("latin-1"))

    def codes(self, lines):
        """The codes of these commands, one after the other."""
        return [self.cmd(line).code for line in lines]

    def flight(self, lines):
        """All in one segment; the replies in order."""
        octets = b"".join((x.encode() if isinstance(x, str) else x) + b"\r\n" for x in lines)
        self.send(octets)
        return [self.reply(x if isinstance(x, str) else x.decode("latin-1")) for x in lines]

    def want(self, code, line):
        reply = self.cmd(line)
        assert reply.code == code, f"{line!r}: {reply}, not {code}"
        return reply

    def ehlo(self, name="client.test"):
        return self.want(250, f"EHLO {name}")

    def keywords(self, name="client.test"):
        """EHLO keywords in upper case, each with its parameter."""
        lines = self.ehlo(name).lines[1:]
        return {w[0].upper(): " ".join(w[1:]) for w in (x[4:].decode().split(" ") for x in lines)}

    def envelope(self, sender="from@sender.test", rcpts=("to@dest.test",), params=""):
        self.want(250, f"MAIL FROM:<{sender}>{' ' + params if params else ''}")
        for rcpt in rcpts:
            self.want(250, f"RCPT TO:<{rcpt}>")

    def data(self, content):
        """DATA, the content as it stands (it must be stuffed already) and the final dot."""
        self.want(354, "DATA")
        self.send(content + b".\r\n")
        return self.reply("DOT")

    def bdat(self, *chunks):
        """One BDAT for each; the last reply."""
        reply = None
        for i, chunk in enumerate(chunks):
            last = i == len(chunks) - 1
            self.send(f"BDAT {len(chunk)}{' LAST' if last else ''}\r\n".encode() + chunk)
            reply = self.reply("BDAT")
            if reply.code != 250:
                break
        return reply

    def mail(self, content=b"Subject: t\r\n\r\nhello\r\n", **envelope):
        """A whole transaction by DATA. Returns the message id of the 250."""
        self.envelope(**envelope)
        reply = self.data(content)
        assert reply.code == 250, reply
        return queued_id(reply)

    def quit(self):
        reply = self.cmd("QUIT")
        assert reply.code == 221, reply
        assert self.closed(), self.input
        self.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends with RST, as a host that vanished does when asked again."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def queued_id(reply):
    """The message id in `250 2.0.0 Queued as ID`."""
    assert reply.code == 250, reply
    return reply.text.split(" ")[-1]
