"""Frames of proto/control.proto, written and read by hand: an implementation apart from protobuf-c."""
import array
import os
import re
import socket
import struct

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FRAME_KINDS = {1: "ready", 2: "start", 3: "holds", 4: "peer_up", 5: "peer_down", 6: "drain",
               7: "drained", 8: "query", 9: "answer", 10: "recovered", 11: "link", 12: "carrier", 13: "lane"}


def varint(n):
    out = bytearray()
    while True:
        out.append((n & 0x7f) | (0x80 if n > 0x7f else 0))
        n >>= 7
        if n == 0:
            return bytes(out)


def number(field, n):
    return varint(field << 3) + varint(n)


def data(field, value):
    if isinstance(value, str):
        value = value.encode()
    return varint(field << 3 | 2) + varint(len(value)) + value


def fields(buf):
    """[(field, value)] of one message; numbers as int, the rest as bytes."""
    out, i = [], 0

    def read():
        nonlocal i
        n = shift = 0
        while True:
            b = buf[i]
            i += 1
            n |= (b & 0x7f) << shift
            shift += 7
            if not b & 0x80:
                return n

    while i < len(buf):
        tag = read()
        if tag & 7 == 0:
            out.append((tag >> 3, read()))
        elif tag & 7 == 2:
            n = read()
            assert i + n <= len(buf)
            out.append((tag >> 3, bytes(buf[i:i + n])))
            i += n
        else:
            raise ValueError("wire type %d" % (tag & 7))
    return out


def decode(frame):
    """(kind, {field: value or list}) of one frame."""
    (kind, body), = fields(frame)
    message = {}
    for field, value in fields(body):
        message.setdefault(field, []).append(value)
    return FRAME_KINDS[kind], message


def start(generation, config_name="mochila.yaml", workers=1, lanes=(), last=True):
    body = number(1, generation) + number(2, 0) + number(3, workers) + number(4, 1)
    for lane, address in lanes:
        ip = bytes(10) + b"\xff\xff" + socket.inet_aton(address)
        body += data(6, number(1, lane) + data(2, ip) + number(3, 0) + number(4, 0) + number(5, 1))
    return data(2, body + data(9, config_name) + number(14, 1 if last else 0))


def answer(query_id, body, last, status=None, slot=None):
    out = number(1, query_id) + number(2, 1 if last else 0) + data(3, body)
    if status is not None:
        out += number(4, status)
    if slot is not None:
        out += number(5, slot)
    return data(9, out)


def send(sock, frame, fds=()):
    ancillary = []
    if fds:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sock.sendmsg([frame], ancillary)


class StatsPage:
    """A counters page in a memfd; the layout is read from proto/stats.h."""

    LANES, LANE_BYTES = 4096, 64

    def __init__(self):
        with open(os.path.join(ROOT, "proto/stats.h")) as f:
            text = f.read()
        lists = {}
        for which in ("STATS_COUNTERS", "STATS_GAUGES"):
            block = re.search(r"#define %s\(X\)(.*?[^\\])\n(?!\s*X)" % which, text, re.S).group(1)
            lists[which] = re.findall(r"X\((\w+)\)", block)
        self.counters, self.gauges = lists["STATS_COUNTERS"], lists["STATS_GAUGES"]
        self.names = ["version", "pid", "generation", "heartbeat_ns"] + self.counters + self.gauges
        self.histogram_at = 8 * len(self.names) + 24
        self.lanes_at = self.histogram_at + 64 * 8
        self.fd = os.memfd_create("stats")
        os.ftruncate(self.fd, self.lanes_at + self.LANES * self.LANE_BYTES)
        self.set(version=int(re.search(r"STATS_VERSION = (\d+)", text).group(1)))

    def set(self, **values):
        for name, value in values.items():
            os.pwrite(self.fd, struct.pack("<Q", value), 8 * self.names.index(name))

    def bucket(self, index, count):
        os.pwrite(self.fd, struct.pack("<Q", count), self.histogram_at + 8 * index)

    def lane(self, index, lane, delivered=0, deferred=0, bounced=0, attempts=0, queued=0, out=0):
        os.pwrite(self.fd, struct.pack("<IIQQQQQQQ", lane, 1, delivered, deferred, bounced, attempts,
                                       queued, out, 0), self.lanes_at + self.LANE_BYTES * index)
