"""Limits, time, drain, full queues and checks by DNS of the inbound side (SRV-29 .. 32, SRV-39, 40)."""
import os
import resource
import signal
import socket
import time

import pytest

from fake_dns import FakeDNS
from fake_mx import FakeMX, Hang
from mochila_node import Node, wait_for
from talk import Closed, Talker, queued_id


@pytest.fixture(scope="module")
def mx():
    with FakeMX() as sink:
        yield sink


def settled(node):
    wait_for("the end of all dialogs", lambda: node.stats()["total"]["open_in"] == 0)


def test_srv29_idle_dialogs_get_421_at_a_stop(mx):
    with Node(routes=[("*", mx.address)]) as node:
        fresh, ready, rcpt = (Talker(node.address) for _ in range(3))
        ready.ehlo()
        rcpt.ehlo()
        rcpt.envelope()
        node.process.send_signal(signal.SIGTERM)
        for talk in (fresh, ready, rcpt):
            reply = talk.reply()
            assert (reply.code, reply.enhanced) == (421, "4.3.2")
            assert talk.closed()
        assert node.stop() == 0


@pytest.mark.parametrize("way", ["DATA", "BDAT", "BDAT between chunks", "long DATA"])
def test_srv29_a_transaction_with_354_is_finished(mx, way):
    rcpt = f"drain-{way.replace(' ', '-').lower()}@dest.test"
    body = b"S: x\r\n\r\n" + b"y" * (98 if way != "long DATA" else 900) * 1 + b"\r\n"
    if way == "long DATA":
        body += (b"z" * 98 + b"\r\n") * 10000
    with Node(routes=[("*", mx.address)], smtp={"drain": "20s"}) as node:
        with Talker(node.address) as talk, Talker(node.address) as idle:
            talk.ehlo()
            talk.envelope(rcpts=[rcpt])
            if "DATA" in way:
                talk.want(354, "DATA")
                talk.send(body[:len(body) // 2])
            elif way == "BDAT":
                talk.send(b"BDAT %d LAST\r\n" % len(body) + body[:10])
            else:
                talk.send(b"BDAT 10\r\n" + body[:10])
                assert talk.reply().code == 250
            node.process.send_signal(signal.SIGTERM)
            assert idle.reply().code == 421  # so the drain has begun
            if "DATA" in way:
                talk.send(body[len(body) // 2:] + b".\r\nMAIL FROM:<late@x.test>\r\n")
            elif way == "BDAT":
                talk.send(body[10:])
            else:
                talk.send(b"BDAT %d LAST\r\n" % (len(body) - 10) + body[10:])
            assert talk.reply().code == 250
            assert talk.reply().code == 421
            assert talk.closed()
        assert node.stop() == 0
        node.start()
        assert mx.wait_of(rcpt).split()[1] == body


def test_srv29_a_client_that_never_ends_does_not_stop_the_stop(mx):
    with Node(routes=[("*", mx.address)], smtp={"drain": "1s"}) as node:
        with Talker(node.address) as talk:
            talk.ehlo()
            talk.envelope()
            talk.want(354, "DATA")
            talk.send(b"S: never\r\n")
            assert node.stop() == 0


def test_srv30_time_limits(mx):
    """Scaled down: the presets are those of RFC 5321 4.5.3.2.7, see test_srv30_presets."""
    with Node(routes=[("*", mx.address)], smtp={"command": "1s", "data_idle": "1s"}) as node:
        idle, active, data, slow = (Talker(node.address) for _ in range(4))
        began = time.monotonic()
        data.ehlo()
        data.envelope()
        data.want(354, "DATA")
        data.send(b"S: x\r\n")
        slow.ehlo()
        slow.envelope()
        slow.want(354, "DATA")
        for _ in range(8):  # longer than the limit in all, never quiet for so long
            time.sleep(0.2)
            assert active.cmd("NOOP").code == 250
            slow.send(b"x\r\n")
        assert time.monotonic() - began > 1
        for talk in (idle, data):
            reply = talk.reply()
            assert (reply.code, reply.enhanced) == (421, "4.4.2")
            assert talk.closed()
        slow.send(b".\r\n")
        assert slow.reply().code == 250
        # An octet now and then is no command.
        drip = Talker(node.address)
        with pytest.raises((Closed, BrokenPipeError, ConnectionResetError)):
            for _ in range(100):
                drip.send(b"N")
                time.sleep(0.1)
        for talk in (idle, active, data, slow, drip):
            talk.close()
        settled(node)


def test_srv30_presets(mx):
    with Node(routes=[("*", mx.address)]) as node:
        shown = node.cli("show", "config", node.config_path).stdout
        for line in ("command: 5m", "data_idle: 5m", "data_bytes_per_min: 1K"):
            assert line in shown


def test_srv31_many_idle_sessions(mx):
    """A thousand from many addresses do not stop a new one, and cost little memory (SAF-04)."""
    with Node(routes=[("*", mx.address)]) as node:
        pid, = node.worker_pids()
        before = node.rss_bytes(pid)
        idle = []
        try:
            for i in range(1000):
                talk = Talker(node.address, source=f"127.0.{1 + i % 50}.{1 + i // 50}")
                talk.ehlo()
                idle.append(talk)
            node.assert_memory(pid, before + 1000 * (16 << 10))
            with Talker(node.address) as talk:
                talk.ehlo()
                talk.mail(rcpts=["new@dest.test"])
            mx.wait_of("new@dest.test")
            assert all(t.cmd("NOOP").code == 250 for t in idle[::100])
        finally:
            for talk in idle:
                talk.close()
        settled(node)


def refused(node, source, code=421, enhanced="4.7.0"):
    talk = Talker(node.address, source=source, greeting=False)
    reply = talk.reply()
    assert (reply.code, reply.enhanced) == (code, enhanced), reply
    assert talk.closed()
    talk.close()


def test_srv31_limit_for_an_address(mx):
    with Node(routes=[("*", mx.address)], smtp={"connections_per_ip": 3}) as node:
        settled(node)
        three = [Talker(node.address, source="127.0.5.1") for _ in range(3)]
        refused(node, "127.0.5.1")
        Talker(node.address, source="127.0.5.2").quit()
        three[0].ehlo()
        three.pop().quit()
        wait_for("room", lambda: node.stats()["total"]["open_in"] == 2)
        three.append(Talker(node.address, source="127.0.5.1"))
        refused(node, "127.0.5.1")
        for talk in three:
            talk.close()


def test_srv31_limit_for_a_network(mx):
    with Node(routes=[("*", mx.address)], smtp={"connections_per_net": 3}) as node:
        settled(node)
        three = [Talker(node.address, source=f"127.0.6.{i}") for i in (1, 2, 3)]
        refused(node, "127.0.6.4")
        Talker(node.address, source="127.0.7.1").quit()
        for talk in three:
            talk.close()


def test_srv31_limit_of_all(mx):
    with Node(routes=[("*", mx.address)], smtp={"connections_max": 3}) as node:
        settled(node)
        three = [Talker(node.address, source=f"127.0.{i}.1") for i in (1, 2, 3)]
        refused(node, "127.0.9.1", 421, "4.3.2")
        three.pop().quit()
        wait_for("room", lambda: node.stats()["total"]["open_in"] == 2)
        Talker(node.address, source="127.0.9.1").quit()
        for talk in three:
            talk.close()


def test_srv31_rate_of_an_address(mx):
    """Also of one whose connections end at once."""
    with Node(routes=[("*", mx.address)], smtp={"accept_per_s_per_ip": 5}) as node:
        codes = []
        for _ in range(40):
            with Talker(node.address, source="127.0.5.1", greeting=False) as talk:
                codes.append(talk.reply("any").code)
        assert 421 in codes
        assert codes[:5] == [220] * 5
        Talker(node.address, source="127.0.5.2").quit()

        def again():
            with Talker(node.address, source="127.0.5.1", greeting=False) as talk:
                return talk.reply("any").code == 220
        wait_for("the next second", again)


def test_srv32_full_queue(mx):
    """452 at MAIL and no 354; mail is taken again when there is room."""
    sink = FakeMX(lambda c, verb, line: Hang() if verb == "CONNECT" and not open_now else None)
    open_now = []
    with sink, Node(routes=[("*", sink.address)], queue={"entries_max": 16}) as node:
        with Talker(node.address) as talk:
            talk.ehlo()
            taken = 0
            while True:
                reply = talk.cmd("MAIL FROM:<a@b.test>")
                if reply.code != 250:
                    break
                talk.want(250, f"RCPT TO:<full{taken}@dest.test>")
                last = queued_id(talk.data(b"S: x\r\n\r\nx\r\n"))
                taken += 1
                assert taken <= 16
            assert (reply.code, reply.enhanced) == (452, "4.3.1")
            assert taken == 16
            assert node.ledger()["queued"] == 16
            node.api("delete", "POST", id=last)
            wait_for("room", lambda: talk.cmd("MAIL FROM:<a@b.test>").code == 250)


def test_vanishing_clients_leave_nothing(mx):
    """At every stage, by FIN and by RST; the dialogs end, soon or at their time limit, and pieces of long
    bodies that are in the log already are dropped."""
    stages = [b"", b"EH", b"EHLO a.test\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n",
              b"DATA\r\n", b"half a line", b"\r\n.", b"\r"]
    flights = [b"".join(stages[:n + 1]) for n in range(len(stages))]
    start = b"".join(stages[2:5])
    flights += [start + chunk for chunk in (b"BDAT 100\r\n", b"BDAT 100 LAST\r\nabc", b"BDAT 5 LAST\r")]
    long = b"S: gone\r\n\r\n" + (b"g" * 98 + b"\r\n") * 20000
    flights += [start + b"DATA\r\n" + long, start + b"BDAT 4000000 LAST\r\n" + long]
    lanes = tuple(f"127.0.0.{n}" for n in range(11, 15))
    with Node(workers=2, lanes=lanes, routes=[("*", mx.address)],
              smtp={"command": "3s", "data_idle": "3s"}) as node:
        before = len(mx.messages)
        for by_reset in (False, True):
            for n, flight in enumerate(flights * 2):
                talk = Talker(node.address)
                talk.send(flight)
                time.sleep(0.002 * (n % 4))  # at different depths; nothing depends on it
                talk.reset() if by_reset else talk.close()
        settled(node)
        ledger = node.ledger()
        assert ledger["accepted"] == 0 and ledger["balance"] == 0
        with Talker(node.address) as talk:
            talk.ehlo()
            talk.mail(long, rcpts=["after@gone.test"])
        assert mx.wait_of("after@gone.test").split()[1] == long
        assert len(mx.messages) == before + 1


def test_client_that_does_not_read(mx):
    """Replies that nobody takes cost a bounded amount, then the connection."""
    with Node(routes=[("*", mx.address)]) as node:
        pid, = node.worker_pids()
        before = node.rss_bytes(pid)
        talk = Talker(node.address, receive_buffer=4096, timeout=5)
        flood = b"NOOP\r\n" * 10000
        with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
            for _ in range(2000):
                talk.send(flood)
        node.assert_memory(pid, before + (16 << 20))
        talk.close()
        settled(node)


def test_kept_input_is_bounded(mx):
    """A client that pours commands while an answer is awaited is paused, not stored."""
    with Node(routes=[("*", mx.address)]) as node:
        pid, = node.worker_pids()
        with Talker(node.address) as talk:
            talk.ehlo()
            before = node.rss_bytes(pid)
            count = 300
            one = (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<pour@dest.test>\r\nDATA\r\nS: x\r\n\r\n" + b"p" * 5000 +
                   b"\r\n.\r\n")
            talk.send(one * count)
            codes = [talk.reply().code for _ in range(4 * count)]
            assert codes == [250, 250, 354, 250] * count
            node.assert_memory(pid, before + (48 << 20))
        mx.wait_of("pour@dest.test", count, 60)


# --- checks that need DNS ---

NULL_MX = ["0 ."]
TABLE = {("null.test", "MX"): NULL_MX, ("mx.test", "MX"): ["10 h.mx.test."], ("h.mx.test", "A"): ["127.0.0.2"],
         ("aonly.test", "A"): ["127.0.0.2"], ("six.test", "AAAA"): ["::2"], ("text.test", "TXT"): ["x"],
         ("bad.test", "MX"): "SERVFAIL", ("badaddress.test", "TXT"): ["x"],
         ("badaddress.test", "A"): "SERVFAIL", ("badaddress.test", "AAAA"): "SERVFAIL"}


@pytest.fixture(scope="module")
def checking():
    with FakeDNS(TABLE) as dns, Node(
            dns={"enabled": True, "servers": [dns.address], "query": "500ms", "total": "1s"},
            smtp={"check_sender_domain": True, "check_recipient_null_mx": True},
            routes=[("routed.test", "127.0.0.1:9")]) as node:
        yield node


@pytest.mark.parametrize("domain,code,enhanced", [
    ("null.test", 550, "5.7.27"), ("NULL.test", 550, "5.7.27"), ("mx.test", 250, "2.1.0"),
    ("aonly.test", 250, "2.1.0"), ("six.test", 250, "2.1.0"), ("nowhere.test", 550, "5.1.8"),
    ("text.test", 550, "5.1.8"), ("bad.test", 451, "4.1.8"), ("badaddress.test", 451, "4.1.8"),
    ("[192.0.2.1]", 250, "2.1.0")])
@pytest.mark.parametrize("asked", ["first", "again"])  # the second answer comes from the cache
def test_srv39_srv40_sender_domain(checking, domain, code, enhanced, asked):
    with Talker(checking.address) as talk:
        talk.ehlo()
        reply = talk.cmd(f"MAIL FROM:<a@{domain}>")
        assert (reply.code, reply.enhanced) == (code, enhanced)
        assert talk.cmd("RCPT TO:<b@mx.test>").code == (250 if code == 250 else 503)


def test_srv40_never_for_the_null_sender(checking):
    with Talker(checking.address) as talk:
        talk.ehlo()
        talk.want(250, "MAIL FROM:<>")


def test_srv39_recipient_with_null_mx(checking):
    with Talker(checking.address) as talk:
        talk.ehlo()
        talk.want(250, "MAIL FROM:<a@mx.test>")
        reply = talk.cmd("RCPT TO:<b@null.test>")
        assert (reply.code, reply.enhanced) == (556, "5.1.10")
        assert talk.cmd("DATA").code in (503, 554)
        talk.want(250, "RCPT TO:<b@mx.test>")
        assert talk.cmd("RCPT TO:<b@null.test>").code == 556
        talk.want(250, "RCPT TO:<b@bad.test>")  # the queue will find out
        talk.want(250, "RCPT TO:<b@routed.test>")
        assert talk.data(b"S: x\r\n\r\nx\r\n").code == 250


def test_srv38_replies_stay_in_order_while_dns_is_asked(checking):
    with Talker(checking.address) as talk:
        talk.ehlo()
        lines = ["MAIL FROM:<a@o1.test>", "MAIL FROM:<a@mx.test>", "RCPT TO:<b@o2.test>", "RCPT TO:<b@null.test>",
                 "NOOP", "RCPT TO:<b@o3.test>", "DATA"]
        assert [r.code for r in talk.flight(lines)] == [550, 250, 250, 556, 250, 250, 354]
        assert talk.cmd(".").code == 250


def test_trc03_client_name():
    """Only a name that leads back to the address."""
    table = {("1.5.0.127.in-addr.arpa", "PTR"): ["good.name.test."], ("good.name.test", "A"): ["127.0.5.1"],
             ("2.5.0.127.in-addr.arpa", "PTR"): ["liar.name.test."], ("liar.name.test", "A"): ["127.0.5.1"],
             ("3.5.0.127.in-addr.arpa", "PTR"): "NXDOMAIN"}
    with FakeMX() as sink, FakeDNS(table) as dns, Node(
            dns={"enabled": True, "servers": [dns.address], "query": "500ms", "total": "1s"},
            smtp={"lookup_client_name": True}, routes=[("*", sink.address)]) as node:
        for last, want in ((1, b"from a.test (good.name.test [127.0.5.1])"), (2, b"from a.test ([127.0.5.2])"),
                           (3, b"from a.test ([127.0.5.3])")):
            with Talker(node.address, source=f"127.0.5.{last}") as talk:
                wait_for("the questions", lambda n=last: ("%d.5.0.127.in-addr.arpa" % n) in str(dns.queries))
                if last == 1:
                    wait_for("the name", lambda: ("good.name.test", "AAAA") in [q[:2] for q in dns.queries])
                talk.ehlo("a.test")
                time.sleep(0.05)  # the answer may still be on its way
                talk.mail(rcpts=[f"name{last}@dest.test"])
            field = sink.wait_of(f"name{last}@dest.test").split()[0]
            assert want in field.replace(b"\r\n\t", b" ")


def test_listener_survives_descriptors_that_run_out(mx):
    """Connections beyond what the process may open wait or are refused; the node does not end."""
    with Node(routes=[("*", mx.address)]) as node:
        pid, = node.worker_pids()
        used = len(os.listdir(f"/proc/{pid}/fd"))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 20, hard))
        crowd = []
        for _ in range(60):
            s = socket.socket()
            s.settimeout(5)
            s.connect(node.address)
            crowd.append(s)
        for s in crowd:
            s.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))

        def answers():
            try:
                with Talker(node.address, timeout=2) as talk:
                    return talk.cmd("NOOP").code == 250
            except (TimeoutError, Closed):
                return False
        wait_for("the listener", answers)
        assert node.worker_pids() == [pid]
