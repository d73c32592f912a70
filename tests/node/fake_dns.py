"""A scripted name server on loopback, UDP and TCP on one port.

    with FakeDNS({("dest.test", "MX"): ["10 mx.dest.test."], ("mx.dest.test", "A"): ["127.0.0.2"],
                  ("slow.test", "MX"): Slow(2, ["10 mx.dest.test."]), ("bad.test", "MX"): "SERVFAIL"}):
        ... dns={"enabled": True, "servers": [server.address]} ...

A value is a list of record texts, "NXDOMAIN", "NODATA", "SERVFAIL", "REFUSED", "TIMEOUT", "TC" (truncated over UDP; over TCP
what (name, type + "-tcp") says), Slow, Ttl or a function of the query's number (from 0). A name that stands nowhere is
NXDOMAIN; one that has other types is NODATA; CNAME records are followed within the table.
"""
import socket
import struct
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Slow:
    def __init__(self, seconds, then):
        self.seconds, self.then = seconds, then


class Ttl:
    def __init__(self, seconds, then):
        self.seconds, self.then = seconds, then


class FakeDNS:
    def __init__(self, table=None, address="127.0.0.1"):
        self.table = dict(table or {})
        self.queries = []  # (name, type, "udp" or "tcp")
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.tcp, self.udp = self.bind(address)
        self.port = self.tcp.getsockname()[1]
        self.address = f"{address}:{self.port}"
        for run in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=run, daemon=True).start()

    @staticmethod
    def bind(address):
        """TCP and UDP on the same port, which one of them chooses and the other may not get."""
        while True:
            tcp = socket.create_server((address, 0), backlog=128)
            udp = socket.socket(type=socket.SOCK_DGRAM)
            try:
                udp.bind(tcp.getsockname())
                return tcp, udp
            except OSError:
                tcp.close()
                udp.close()

    def asked(self, name=None, kind=None):
        with self.lock:
            return [q for q in self.queries if name in (None, q[0]) and kind in (None, q[1])]

    # --- answers ---

    def find(self, name, kind):
        """(records' action, aliases on the way)."""
        aliases = []
        for _ in range(20):
            found = self.table.get((name, kind))
            if found is not None:
                return found, aliases
            alias = self.table.get((name, "CNAME"))
            if alias is None:
                break
            aliases.append((name, alias[0]))
            name = alias[0].rstrip(".").lower()
        known = any(n == name for n, _ in self.table)
        return ("NODATA" if known else "NXDOMAIN"), aliases

    def answer(self, query, over):
        question = query.question[0]
        name = question.name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        with self.lock:
            number = sum(1 for q in self.queries if q[:2] == (name, kind))
            self.queries.append((name, kind, over))
        action, aliases = self.find(name, kind)
        if callable(action):
            action = action(number)
        if isinstance(action, Slow):
            if self.ending.wait(action.seconds):
                return None
            action = action.then
        ttl = 300
        if isinstance(action, Ttl):
            ttl, action = action.seconds, action.then
        if action == "TC" and over == "tcp":
            action = self.table[name, f"{kind}-tcp"]
        if action == "TIMEOUT":
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        for owner, target in aliases:
            reply.answer.append(dns.rrset.from_text(f"{owner}.", ttl, "IN", "CNAME", target))
        self.fill(reply, aliases[-1][1] if aliases else f"{name}.", kind, ttl, action)
        return reply.to_wire(max_size=65535)

    @staticmethod
    def fill(reply, owner, kind, ttl, action):
        if isinstance(action, list):
            reply.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, *action))
        elif action == "TC":
            reply.flags |= dns.flags.TC
        elif action in ("SERVFAIL", "REFUSED"):
            reply.set_rcode(dns.rcode.from_text(action))
        else:
            if action == "NXDOMAIN":
                reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(dns.rrset.from_text("test.", 5, "IN", "SOA",
                                                       "ns.test. admin.test. 1 2 3 4 5"))

    # --- sockets ---

    def serve_udp(self):
        def one(wire, peer):
            reply = self.answer(dns.message.from_wire(wire), "udp")
            if reply is not None:
                try:
                    self.udp.sendto(reply, peer)
                except OSError:
                    pass  # the test is over
        while True:
            try:
                wire, peer = self.udp.recvfrom(65535)
            except OSError:
                return
            if not wire:
                return  # shut down
            threading.Thread(target=one, args=(wire, peer), daemon=True).start()

    def serve_tcp(self):
        def one(conn):
            with conn, conn.makefile("rb") as stream:
                try:
                    while len(head := stream.read(2)) == 2:
                        wire = stream.read(struct.unpack("!H", head)[0])
                        reply = self.answer(dns.message.from_wire(wire), "tcp")
                        if reply is not None:
                            conn.sendall(struct.pack("!H", len(reply)) + reply)
                except OSError:
                    pass  # the client may leave at any time
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(conn,), daemon=True).start()

    def close(self):
        self.ending.set()
        for s in (self.tcp, self.udp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
