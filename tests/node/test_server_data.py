"""Message data: its end, dots, smuggling, limits, chunks, trace field (SRV-21 .. 27, TRC, EXT)."""
import re
import time

import pytest

from fake_mx import ALL_OFFERS, FakeMX
from mochila_node import Node, wait_for
from talk import Talker, queued_id

SIZE_MAX = 300000
REJECT, NORMALISE = 0, 1


@pytest.fixture(scope="module")
def mx():
    """Offers everything but CHUNKING: what it gets comes by DATA."""
    with FakeMX(offers=[x for x in ALL_OFFERS if x != "CHUNKING"]) as sink:
        yield sink


@pytest.fixture(scope="module")
def chunky():
    with FakeMX() as sink:
        yield sink


@pytest.fixture(scope="module")
def node(mx, chunky):
    with Node(listeners=[{"bare": "reject"}, {"bare": "normalise"}],
              routes=[("chunky.test", chunky.address), ("*", mx.address)],
              smtp={"size_max": SIZE_MAX}) as one:
        yield one


@pytest.fixture
def talk(node):
    with Talker(node.address) as one:
        one.ehlo()
        yield one


counter = iter(range(1, 1 << 30))


def fresh(domain="dest.test"):
    return f"n{next(counter)}@{domain}"


def unstuffed(wire):
    return b"".join(x[1:] if x.startswith(b".") else x for x in re.split(rb"(?<=\r\n)", wire))


def normalised(text):
    return re.sub(rb"\r\n|\r|\n", b"\r\n", text)


def send(talk, content, rcpt):
    talk.envelope(rcpts=[rcpt])
    return talk.data(content)


# --- dots and the end ---

@pytest.mark.parametrize("content,stored", [
    (b"S: x\r\n\r\n..a\r\n.b\r\n", b"S: x\r\n\r\n.a\r\nb\r\n"),
    (b"..\r\n", b".\r\n"), (b"...\r\n..\r\n", b"..\r\n.\r\n"), (b"", b""), (b"\r\n", b"\r\n"),
    (b".a\r\n", b"a\r\n"), (b"a.\r\n.b.\r\n", b"a.\r\nb.\r\n"), (b"\r\n\r\n\r\n", b"\r\n\r\n\r\n"),
])
@pytest.mark.parametrize("listener", [REJECT, NORMALISE])
def test_srv21_dots(node, mx, chunky, content, stored, listener):
    one, two = fresh(), fresh("chunky.test")
    with Talker(node.addresses[listener]) as talk:
        talk.ehlo()
        assert send(talk, content, one).code == 250
        assert send(talk, content, two).code == 250
    assert mx.wait_of(one).split()[1] == stored
    assert chunky.wait_of(two).split()[1] == stored


def test_srv21_every_split_of_the_end(node, mx):
    """The end of data, and what looks like it, cut at every place."""
    content = b"Subject: cut\r\n\r\nab\r\n..\r\n.c\r\n"
    octets = content + b".\r\n"
    for listener in (REJECT, NORMALISE):
        with Talker(node.addresses[listener]) as talk:
            talk.ehlo()
            for cut in range(len(content) - 12, len(octets)):
                rcpt = fresh()
                talk.envelope(rcpts=[rcpt])
                talk.want(354, "DATA")
                talk.send(octets[:cut])
                time.sleep(0.005)  # a segment of its own; nothing depends on it
                talk.send(octets[cut:])
                assert talk.reply().code == 250
                assert mx.wait_of(rcpt).split()[1] == unstuffed(content)


PARTS = [b"\n", b"\r", b"\r\n", b"\r\r\n", b"\n\r", b"\r\r", b"\n\n", b"\0\n", b"\r\0\n", b"\r\n\0",
         b"\x85", b"\x0b", b"\x0c", b"\xe2\x80\xa8"]
SEQUENCES = [a + b"." + b for a in PARTS for b in PARTS if b"\r\n.\r\n" not in a + b"." + b]
# Dots that are doubled, alone, or at the very beginning.
SEQUENCES += [b"\n..\n", b"\r\n..\n", b"\n..\r\n", b"\r..\r", b"\r\n.\r.\r\n", b"\r\n.\n.\r\n", b"\r\n.\r\r\n",
              b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n.\0\r\n", b"\r\n\0.\r\n"]


def smuggled(sequence):
    return (b"Subject: first\r\n\r\nfirst" + sequence + b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@dest"
            b".test>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n")


@pytest.mark.parametrize("sequence", SEQUENCES, ids=[repr(s)[2:-1] for s in SEQUENCES])
def test_srv22_smuggling(node, mx, sequence):
    content = smuggled(sequence)
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", content) is not None
    nul = b"\0" in content
    for listener in (REJECT, NORMALISE):
        rcpt = fresh()
        with Talker(node.addresses[listener]) as talk:
            talk.ehlo()
            reply = send(talk, content, rcpt)
            if nul:
                assert (reply.code, reply.enhanced) == (550, "5.6.0")
            elif bare and listener == REJECT:
                assert (reply.code, reply.enhanced) == (550, "5.5.2")
            else:
                assert reply.code == 250
            assert talk.cmd("NOOP").code == 250
            assert talk.no_reply(0.01)
        if reply.code == 250:
            message = mx.wait_of(rcpt)
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", message.wire)
            want = unstuffed(content)
            assert message.split()[1] == (normalised(want) if listener == NORMALISE else want)
    assert mx.of("victim@dest.test") == []


@pytest.mark.parametrize("sequence", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r"])
def test_srv22_one_octet_at_a_time(node, mx, sequence):
    content = smuggled(sequence)
    for listener, code in ((REJECT, 550), (NORMALISE, 250)):
        rcpt = fresh()
        with Talker(node.addresses[listener]) as talk:
            talk.ehlo()
            talk.envelope(rcpts=[rcpt])
            talk.want(354, "DATA")
            talk.send_singly(content + b".\r\n")
            assert talk.reply().code == code
        if code == 250:
            assert mx.wait_of(rcpt).split()[1] == normalised(unstuffed(content))
    assert mx.of("victim@dest.test") == []


@pytest.mark.parametrize("start", [b".\n", b".\r", b"\n.\r\n", b"\r.\r\n", b".\r.\r\n", b".\n.\r\nMAIL FROM:<>\r\n"])
def test_srv22_right_at_the_beginning(node, mx, start):
    content = start + b"x\r\n"
    for listener, code in ((REJECT, 550), (NORMALISE, 250)):
        rcpt = fresh()
        with Talker(node.addresses[listener]) as talk:
            talk.ehlo()
            assert send(talk, content, rcpt).code == code
            assert talk.cmd("NOOP").code == 250
        if code == 250:
            assert mx.wait_of(rcpt).split()[1] == normalised(unstuffed(content))


@pytest.mark.parametrize("sequence", [b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n..\r\n"])
def test_ext13_bdat_does_not_smuggle(node, mx, chunky, sequence):
    """What BDAT may hold literally must not end a message on a DATA hop."""
    content = b"Subject: first\r\n\r\na" + sequence + b"MAIL FROM:<evil@x.test>\r\n.\r\nRCPT TO:<victim@dest.test>\r\n"
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", content) is not None
    for listener in (REJECT, NORMALISE):
        for sink, domain in ((mx, "dest.test"), (chunky, "chunky.test")):
            rcpt = fresh(domain)
            with Talker(node.addresses[listener]) as talk:
                talk.ehlo()
                talk.envelope(rcpts=[rcpt])
                reply = talk.bdat(content[:20], content[20:25], content[25:])
                if bare and listener == REJECT:
                    assert (reply.code, reply.enhanced) == (550, "5.5.2")
                    assert talk.cmd("MAIL FROM:<>").code == 250
                    continue
                assert reply.code == 250
            message = sink.wait_of(rcpt)
            assert message.split()[1] == (normalised(content) if listener == NORMALISE else content)
    assert mx.of("victim@dest.test") == []


@pytest.mark.parametrize("content", [b"a", b"a\r", b"a\n", b"\r", b".", b"..", b".\r\n.", b"", b"\r\n.\r\n"])
@pytest.mark.parametrize("listener", [REJECT, NORMALISE])
def test_ext13_bdat_that_does_not_end_a_line(node, mx, content, listener):
    rcpt = fresh()
    with Talker(node.addresses[listener]) as talk:
        talk.ehlo()
        talk.envelope(rcpts=[rcpt])
        reply = talk.bdat(b"S: x\r\n\r\n", content)
        if listener == REJECT and re.search(rb"\r(?!\n)|(?<!\r)\n", content):
            assert reply.code == 550
            return
        assert reply.code == 250
    want = normalised(content) if listener == NORMALISE else content
    if want and not want.endswith(b"\r\n"):
        want += b"\r\n"
    assert mx.wait_of(rcpt).split()[1] == b"S: x\r\n\r\n" + want


def test_srv24_refused_at_the_dot_is_never_delivered(node, mx, talk):
    rcpt = fresh()
    before = node.ledger()["accepted"]
    assert send(talk, b"S: x\r\n\r\na\0b\r\n", rcpt).code == 550
    assert send(talk, b"S: x\r\n\r\na\nb\r\n", rcpt).code == 550
    other = fresh()
    assert send(talk, b"S: x\r\n\r\nx\r\n", other).code == 250
    mx.wait_of(other)
    assert mx.of(rcpt) == []
    assert node.ledger()["accepted"] == before + 1


def test_srv25_lost_before_the_dot(node, mx):
    rcpt = fresh()
    before = node.ledger()["accepted"]
    for content in (b"S: x\r\n\r\nwhole\r\n", b"S: x\r\n\r\nwhole\r\n.", b"S: x\r\n\r\nwhole\r\n.\r", b"x" * 200000):
        talk = Talker(node.address)
        talk.ehlo()
        talk.envelope(rcpts=[rcpt])
        talk.want(354, "DATA")
        talk.send(content)
        talk.close()
    wait_for("the end of the dialogs", lambda: node.stats()["total"]["open_in"] == 0)
    assert node.ledger()["accepted"] == before
    assert mx.of(rcpt) == []


def big(octets):
    head = b"Subject: big\r\n\r\n"
    lines, rest = divmod(octets - len(head), 100)
    return head + (b"x" * 98 + b"\r\n") * lines + (b"y" * (rest - 2) + b"\r\n" if rest >= 2 else b"")


@pytest.mark.parametrize("listener", [REJECT, NORMALISE])
def test_srv26_oversize_is_read_to_the_dot(node, mx, listener):
    pid, = node.worker_pids()
    with Talker(node.addresses[listener]) as talk:
        talk.ehlo()
        talk.envelope()
        reply = talk.data(big(2 * SIZE_MAX))
        assert (reply.code, reply.enhanced) == (552, "5.3.4")
        sizes = []
        block = big(1 << 20)
        for _ in range(2):  # the first time the shared receive buffers are touched
            talk.envelope()
            talk.want(354, "DATA")
            for _ in range(48):
                talk.send(block)
            talk.send(b".\r\n")
            assert talk.reply().code == 552
            sizes.append(node.rss_bytes(pid))
        assert sizes[1] < sizes[0] + (2 << 20) or node.sanitized
        rcpt = fresh()
        assert send(talk, b"S: x\r\n\r\nsmall\r\n", rcpt).code == 250
        mx.wait_of(rcpt)


def test_srv26_the_limit_itself(node, mx, talk):
    rcpt = fresh()
    exact = big(SIZE_MAX - 20) + b"z" * 18 + b"\r\n"
    assert len(exact) == SIZE_MAX
    assert send(talk, exact, rcpt).code == 250
    assert mx.wait_of(rcpt).split()[1] == exact
    assert send(talk, exact + b"\r\n", fresh()).code == 552
    # EXT-01: doubled dots do not count.
    dots = b"S: x\r\n\r\n" + b".\r\n" * ((SIZE_MAX - 8) // 3)
    stuffed = dots.replace(b"\r\n.", b"\r\n..")
    assert len(dots) <= SIZE_MAX < len(stuffed)
    rcpt = fresh()
    assert send(talk, stuffed, rcpt).code == 250
    assert mx.wait_of(rcpt).split()[1] == dots


def hops(count):
    return b"".join(b"Received: from h%d.test by h%d.test; Sat, 21 Nov 2026 16:56:24 +0000\r\n" % (i, i + 1)
                    for i in range(count)) + b"Subject: hops\r\n\r\nx\r\n"


def test_srv27_hops(node, mx, talk):
    rcpt = fresh()
    assert send(talk, hops(99), rcpt).code == 250
    assert mx.wait_of(rcpt).split()[1] == hops(99)
    for count in (100, 101):
        reply = send(talk, hops(count), fresh())
        assert (reply.code, reply.enhanced) == (554, "5.4.6")
    # In the body they are no hops, and folded or in other case they are.
    assert send(talk, b"S: x\r\n\r\n" + hops(150), fresh()).code == 250
    assert send(talk, hops(101).replace(b"Received: from", b"rEcEiVeD \t:\r\n from"), fresh()).code == 554
    talk.envelope()
    assert talk.bdat(hops(101)).code == 554
    with Talker(node.addresses[NORMALISE]) as tolerant:  # lines that only normalising makes
        tolerant.ehlo()
        assert send(tolerant, hops(101).replace(b"+0000\r\n", b"+0000\n"), fresh()).code == 554


def test_srv35_relay_mends_nothing(mx, talk):
    odd = (b"Subject: two\r\nSubject: subjects\r\nX-Odd : blank\r\nFROM:\r\n no address\r\n"
           b"Bcc: kept@x.test\r\nReturn-Path: <kept@x.test>\r\n\r\nbody\r\n")
    for content in (odd, b"no header at all\r\n", b"\r\n", b"\r\nonly body\r\n"):
        rcpt = fresh()
        assert send(talk, content, rcpt).code == 250
        assert mx.wait_of(rcpt).split()[1] == content


def test_msg07_nul(talk):
    reply = send(talk, b"S: x\r\n\r\nnul \0 here\r\n", fresh())
    assert (reply.code, reply.enhanced) == (550, "5.6.0")


def test_long_lines_pass(node, mx, talk):
    content = b"S: x\r\n\r\n" + b"l" * 200000 + b"\r\n"
    rcpt = fresh()
    assert send(talk, content, rcpt).code == 250
    assert mx.wait_of(rcpt).split()[1] == content


def test_header_section_has_a_limit(talk):
    many = b"".join(b"X-%d: y\r\n" % i for i in range(1001)) + b"\r\nx\r\n"
    assert send(talk, many, fresh()).code in (552, 554)
    wide = b"X: " + b"y" * 263000 + b"\r\n\r\nx\r\n"
    assert send(talk, wide, fresh()).code in (552, 554)


# --- trace ---

DATE = rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d? (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d \+0000"
TRACE = re.compile(rb"Received: from (?P<helo>\S+)\s+\((?P<info>[^()]*)\)\s+by (?P<by>\S+) with (?P<with>\w+) id "
                   rb"(?P<id>\S+)(\s+for <(?P<rcpt>[^>]*)>)?;\s+(?P<date>" + DATE + rb")\r\n")


def trace_of(message):
    field, rest = message.split()
    assert all(len(line) <= 78 for line in field.split(b"\r\n")), field
    found = TRACE.fullmatch(re.sub(rb"\r\n(?=[ \t])", b"", field))
    assert found, field
    return found, rest


def test_trc01_trc02_trc06_one_field_on_top(mx, talk):
    content = b"Received: from a by b; Sat, 21 Nov 2026 16:56:24 +0000\r\nSubject: t\r\n\r\nx\r\n"
    rcpt = fresh()
    message = queued_id(send(talk, content, rcpt))
    found, rest = trace_of(mx.wait_of(rcpt))
    assert rest == content
    assert found["by"] == b"mx.node.test" and found["id"].decode() == message
    assert found["rcpt"].decode() == rcpt and found["helo"] == b"client.test"
    assert found["info"] == b"[127.0.0.1]"


@pytest.mark.parametrize("greeting,params,word", [
    ("HELO h.test", "", b"SMTP"), ("EHLO h.test", "", b"ESMTP"), ("EHLO h.test", "SMTPUTF8", b"UTF8SMTP")])
def test_trc04_with(node, mx, greeting, params, word):
    rcpt = fresh()
    with Talker(node.address) as talk:
        talk.want(250, greeting)
        talk.mail(rcpts=[rcpt], params=params)
    assert trace_of(mx.wait_of(rcpt))[0]["with"] == word


def test_trc03_ehlo_cannot_break_out(node, mx):
    for name in ("[127.0.0.1]", "[IPv6:2001:db8::1]", "a-b.c1.test", "x" * 58 + ".test"):
        rcpt = fresh()
        with Talker(node.address) as talk:
            talk.ehlo(name)
            talk.mail(rcpts=[rcpt])
        assert trace_of(mx.wait_of(rcpt))[0]["helo"].decode() == name
    with Talker(node.address) as talk:
        for name in ("a)b", "a(b", "a;b", "a\tb", "a\\b", '"a"', "a,b", "<a>", "a\x0bb"):
            reply = talk.cmd(f"EHLO {name}")
            assert reply.code in (250, 501)
            if reply.code == 250:
                rcpt = fresh()
                talk.mail(rcpts=[rcpt])
                trace_of(mx.wait_of(rcpt))


def test_trc05_no_for_with_two_recipients(mx, talk):
    one, two = fresh(), fresh()
    talk.mail(rcpts=[one, two])
    assert trace_of(mx.wait_of(one))[0]["rcpt"] is None


def test_trc10_relay_adds_no_return_path(mx, talk):
    rcpt = fresh()
    talk.mail(rcpts=[rcpt])
    assert b"return-path" not in mx.wait_of(rcpt).body.lower()


# --- extensions ---

def test_ext01_size(node, mx, talk):
    assert talk.keywords()["SIZE"] == str(SIZE_MAX)
    reply = talk.cmd(f"MAIL FROM:<a@b.test> SIZE={SIZE_MAX + 1}")
    assert (reply.code, reply.enhanced) == (552, "5.3.4")
    assert talk.cmd("MAIL FROM:<a@b.test> SIZE=18446744073709551616").code == 552
    for declared in (10, SIZE_MAX, 0):
        rcpt = fresh()
        talk.envelope(rcpts=[rcpt], params=f"SIZE={declared}")
        assert talk.data(big(1000)).code == 250
        assert mx.wait_of(rcpt).split()[1] == big(1000)


def test_ext03_all_eight_bits(mx, chunky, talk):
    octets = bytes(range(1, 10)) + bytes(range(14, 256)) + b"\x0b\x0c"
    content = b"Subject: 8\r\n\r\n" + octets + b"\r\n"
    for sink, rcpt in ((mx, fresh()), (chunky, fresh("chunky.test"))):
        talk.envelope(rcpts=[rcpt], params="BODY=8BITMIME")
        assert talk.data(content).code == 250
        message = sink.wait_of(rcpt)
        assert message.split()[1] == content
        assert b"BODY=8BITMIME" in message.mail.upper()


def test_ext05_codes_with_helo_too(node):
    with Talker(node.address) as talk:  # the Talker itself judges each reply
        talk.want(250, "HELO h.test")
        talk.codes(["FOO", "NOOP", "RSET", "VRFY x", "EXPN x", "HELP", "DATA", "RCPT TO:<a@b.test>", "MAIL FROM:<",
                    "MAIL FROM:<a@b.test> X=1", "MAIL FROM:<a@b.test>", "RCPT TO:<", "BDAT x", "RCPT TO:<a@b.test>",
                    "QUIT x", "QUIT"])
        assert len(talk.replies) == 18


def test_ext10_chunks(mx, talk):
    rcpt = fresh()
    talk.envelope(rcpts=[rcpt])
    assert talk.bdat(b"Subject: c\r\n", b"\r\n", b"", b"one ", b"line\r\n", b"").code == 250
    assert mx.wait_of(rcpt).split()[1] == b"Subject: c\r\n\r\none line\r\n"
    rcpt = fresh()
    talk.envelope(rcpts=[rcpt])
    talk.send(b"BDAT 0 LAST\r\n")
    assert talk.reply().code == 250
    assert mx.wait_of(rcpt).split()[1] == b""


@pytest.mark.parametrize("before,code", [
    ([], 503), (["MAIL FROM:<a@b.test>"], 503), (["MAIL FROM:<a@b.test>", "RCPT TO:<@@>"], 503)])
@pytest.mark.parametrize("last", [b"", b" LAST"])
def test_ext11_octets_are_consumed_out_of_order(node, mx, before, code, last):
    with Talker(node.address) as talk:
        talk.send(b"BDAT 6" + last + b"\r\nQUIT\r\nNOOP\r\n")
        assert [talk.reply().code, talk.reply().code] == [503, 250]
        talk.ehlo()
        talk.codes(before)
        talk.send(b"BDAT 6" + last + b"\r\nQUIT\r\nNOOP\r\n")
        assert [talk.reply().code, talk.reply().code] == [code, 250]
        if before:
            talk.want(250, "RCPT TO:<a@b.test>")
            assert talk.data(b"\r\nx\r\n").code == 250


def test_ext11_data_and_bdat_do_not_mix(talk):
    talk.envelope()
    talk.send(b"BDAT 5\r\nHELLO")
    assert talk.reply().code == 250
    for line in ("DATA", "MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test>"):
        assert talk.cmd(line).code == 503, line
    talk.send(b"BDAT 2 LAST\r\n\r\n")
    assert talk.reply().code == 250
    talk.send(b"BDAT 6 LAST\r\nQUIT\r\n")
    assert talk.reply().code == 503
    assert talk.cmd("NOOP").code == 250


def test_ext12_failed_chunk(node, mx, talk):
    rcpt = fresh()
    talk.envelope(rcpts=[rcpt])
    half = b"x" * 198 + b"\r\n"
    octets = b"BDAT 200\r\n" + half + b"BDAT %d\r\n" % SIZE_MAX + half * (SIZE_MAX // 200)
    octets += b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
    talk.send(octets)
    assert [talk.reply().code for _ in range(5)] == [250, 552, 552, 552, 250]
    talk.envelope(rcpts=[rcpt])
    talk.send(b"BDAT 200\r\n" + half + b"BDAT %d\r\n" % SIZE_MAX + half * (SIZE_MAX // 200))
    assert [talk.reply().code for _ in range(2)] == [250, 552]
    talk.want(250, "RSET")
    other = fresh()
    talk.envelope(rcpts=[other])
    assert talk.bdat(b"S: x\r\n\r\nok\r\n").code == 250
    assert mx.wait_of(other).split()[1] == b"S: x\r\n\r\nok\r\n"
    assert mx.of(rcpt) == []


def test_ext12_limit_hit_inside_a_chunk(talk):
    talk.envelope()
    talk.send(b"BDAT %d\r\n" % len(hops(101)) + hops(101))
    assert talk.reply().code == 554
    talk.send(b"BDAT 6 LAST\r\nQUIT\r\n")
    assert talk.reply().code == 554
    assert talk.cmd("MAIL FROM:<a@b.test>").code == 250


@pytest.mark.parametrize("size", ["99999999999999", "18446744073709551615", "18446744073709551616", "9" * 100])
@pytest.mark.parametrize("state", ["new", "rcpt", "chunk"])
def test_ext16_absurd_sizes(node, size, state):
    pid, = node.worker_pids()
    before = node.rss_bytes(pid)
    with Talker(node.address) as talk:
        if state != "new":
            talk.ehlo()
            talk.envelope()
        if state == "chunk":
            talk.send(b"BDAT 5\r\nHELLO")
            assert talk.reply().code == 250
        assert talk.cmd(f"BDAT {size}").code in (552, 501)
        assert talk.closed()
    node.assert_memory(pid, before + (2 << 20))


@pytest.mark.parametrize("line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 1 FIRST", "BDAT 1 LAST x", "BDAT 0x10", "BDAT 1.5"])
def test_ext10_syntax(talk, line):
    talk.envelope()
    assert talk.cmd(line).code == 501
    assert talk.data(b"\r\nx\r\n").code == 250


def test_ext10_many_tiny_chunks_around_the_size_of_a_piece(node, mx):
    """Pieces of 256 KiB go to the log: chunks that end just there must not pass it by."""
    rcpt = fresh()
    piece = 256 << 10
    first = (b"." + b"d" * 97 + b"\r\n") * (piece // 101)
    with Talker(node.address) as talk:
        talk.ehlo()
        talk.envelope(rcpts=[rcpt])
        head = b"S: x\r\n\r\n"
        sizes = [len(head), len(first)] + [1] * 3000
        content = head + first + b".\r\n" * 1000
        flight = b""
        at = 0
        for size in sizes:
            flight += b"BDAT %d\r\n" % size + content[at:at + size]
            at += size
        flight += b"BDAT 0 LAST\r\n"
        assert at == len(content) <= SIZE_MAX
        talk.send(flight)
        assert [talk.reply().code for _ in range(len(sizes) + 1)] == [250] * (len(sizes) + 1)
    assert mx.wait_of(rcpt).split()[1] == content


def test_several_messages_in_one_flight(node, mx):
    rcpts = [fresh() for _ in range(4)]
    octets = b"EHLO a.test\r\n"
    for i, rcpt in enumerate(rcpts):
        octets += b"MAIL FROM:<a@b.test>\r\nRCPT TO:<" + rcpt.encode() + b">\r\n"
        if i % 2 == 0:
            octets += b"DATA\r\nSubject: d\r\n\r\nnumber %d\r\n.\r\n" % i
        else:
            octets += b"BDAT 14\r\nSubject: d\r\n\r\nBDAT 10 LAST\r\nnumber %d\r\n" % i
    octets += b"QUIT\r\n"
    with Talker(node.address) as talk:
        talk.send(octets)
        codes = [talk.reply("any" if i == 0 else "command").code for i in range(18)]
        assert codes == [250] + [250, 250, 354, 250, 250, 250, 250, 250] * 2 + [221]
    for i, rcpt in enumerate(rcpts):
        assert mx.wait_of(rcpt).split()[1] == b"Subject: d\r\n\r\nnumber %d\r\n" % i


def test_ext20_utf8(mx, talk):
    sender, rcpt = "δοκιμή@παράδειγμα.test", f"ü{next(counter)}@dest.test"
    talk.want(250, f"MAIL FROM:<{sender}> SMTPUTF8")
    talk.want(250, f"RCPT TO:<{rcpt}>")
    assert talk.data("Subject: δοκιμή\r\n\r\nκείμενο\r\n".encode()).code == 250
    message = mx.wait_of(rcpt)
    assert message.sender == sender and b"SMTPUTF8" in message.mail.upper()
    assert message.split()[1] == "Subject: δοκιμή\r\n\r\nκείμενο\r\n".encode()
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3"):
        assert talk.cmd(b"MAIL FROM:<" + bad + b"@b.test> SMTPUTF8").code == 501, bad
        assert talk.cmd(b"MAIL FROM:<a@" + bad + b".test> SMTPUTF8").code == 501, bad


def test_ext22_flag_that_nothing_needs(mx, talk):
    rcpt = fresh()
    talk.mail(rcpts=[rcpt], params="SMTPUTF8")
    assert b"SMTPUTF8" not in mx.wait_of(rcpt).mail.upper()
