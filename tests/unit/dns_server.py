#!/usr/bin/python3
"""A DNS server on loopback that answers by the name it is asked; prints its port, ends with its stdin."""
import socket
import struct
import sys
import threading
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

counts = {}


def add(msg, name, ttl, kind, *data):
    msg.answer.append(dns.rrset.from_text(name, ttl, 'IN', kind, *data))


def absent(msg, minimum):
    msg.authority.append(dns.rrset.from_text(
        'test.', 900, 'IN', 'SOA', f'ns.test. admin.test. 1 2 3 4 {minimum}'))


def answer(query, over_tcp):
    question = query.question[0]
    name = question.name.to_text().lower()
    kind = dns.rdatatype.to_text(question.rdtype)
    first = name.split('.')[0]
    msg = dns.message.make_response(query, recursion_available=True)
    if query.flags & dns.flags.AD:
        msg.flags |= dns.flags.AD
    counts[name, kind] = counts.get((name, kind), 0) + 1
    if first == 'mx' and kind == 'MX':
        add(msg, name, 300, 'MX', '20 C.mx.test.', '5 a.mx.test.', '20 b.mx.test.')
    elif first == 'null' and kind == 'MX':
        add(msg, name, 300, 'MX', '0 .')
    elif first == 'alias' and kind == 'MX':
        add(msg, name, 60, 'CNAME', 'Alias2.test.')
        add(msg, 'alias2.test.', 200, 'CNAME', 'mx.test.')
        add(msg, 'mx.test.', 300, 'MX', '10 a.mx.test.')
    elif first == 'insecure' and kind == 'MX':
        msg.flags &= ~dns.flags.AD
        add(msg, name, 300, 'MX', '10 a.mx.test.')
    elif first == 'big' and kind == 'MX':
        if over_tcp:
            add(msg, name, 300, 'MX', *[f'{i} host-with-a-very-long-name-{i}.in-a-long-domain-name.test.'
                                        for i in range(40, 0, -1)])
        else:
            msg.flags |= dns.flags.TC
    elif first == 'addr' and kind == 'A':
        add(msg, name, 300, 'A', '192.0.2.1', '192.0.2.2')
    elif first == 'addr' and kind == 'AAAA':
        add(msg, name, 100, 'AAAA', '2001:db8::1')
    elif first == 'v4only' and kind == 'A':
        add(msg, name, 300, 'A', '192.0.2.9')
    elif first == 'half' and kind == 'A':
        add(msg, name, 3000, 'A', '192.0.2.7')
    elif first == 'half':
        msg.set_rcode(dns.rcode.SERVFAIL)
    elif first == 'once' and kind == 'A':
        add(msg, name, 1, 'A', f'127.0.0.{counts[name, kind]}')
    elif first in ('nx', 'bad-half'):
        if first == 'bad-half' and kind == 'AAAA':
            msg.set_rcode(dns.rcode.SERVFAIL)
        else:
            msg.set_rcode(dns.rcode.NXDOMAIN)
            absent(msg, 7)
    elif first == 'servfail':
        msg.set_rcode(dns.rcode.SERVFAIL)
    elif first == 'refused':
        msg.set_rcode(dns.rcode.REFUSED)
    elif first == 'silent':
        return None
    elif first == 'forged':
        forged = dns.message.make_query('other.test.', 'MX')
        forged.id = query.id
        msg = dns.message.make_response(forged)
        add(msg, 'other.test.', 300, 'MX', '10 evil.test.')
    elif first == 'slow':
        time.sleep(0.4)
        add(msg, name, 300, 'MX', '10 slow.mx.test.')
    elif kind == 'PTR' and name == '1.2.0.192.in-addr.arpa.':
        add(msg, name, 300, 'PTR', 'Out1.example.net.')
    elif kind == 'PTR' and name.endswith('8.b.d.0.1.0.0.2.ip6.arpa.') and name.startswith('5.0.0.0.'):
        add(msg, name, 300, 'PTR', 'six.example.net.')
    else:
        absent(msg, 9)
    return msg.to_wire(max_size=65535)


def serve_udp(sock):
    def one(wire, peer):
        reply = answer(dns.message.from_wire(wire), False)
        if reply is not None:
            sock.sendto(reply, peer)
    while True:
        wire, peer = sock.recvfrom(65535)
        threading.Thread(target=one, args=(wire, peer), daemon=True).start()


def serve_tcp(sock):
    def one(conn):
        with conn, conn.makefile('rb') as stream:
            try:
                while len(head := stream.read(2)) == 2:
                    wire = stream.read(struct.unpack('!H', head)[0])
                    reply = answer(dns.message.from_wire(wire), True)
                    conn.sendall(struct.pack('!H', len(reply)) + reply)
            except OSError:
                pass  # the client may leave at any time
    while True:
        conn, _ = sock.accept()
        threading.Thread(target=one, args=(conn,), daemon=True).start()


def main():
    while True:
        tcp = socket.socket()
        tcp.bind(('127.0.0.1', 0))
        udp = socket.socket(type=socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
            break
        except OSError:
            continue
    tcp.listen()
    threading.Thread(target=serve_udp, args=(udp,), daemon=True).start()
    threading.Thread(target=serve_tcp, args=(tcp,), daemon=True).start()
    print(tcp.getsockname()[1], flush=True)
    sys.stdin.read()


main()
