"""The inbound dialog, row by row: commands, order, syntax, relaying (SRV-01 .. SRV-20, SRV-28 ...).

Every reply that a Talker reads is checked for its form and its enhanced code (EXT-05, SRV-36).
"""
import re

import pytest

from fake_mx import FakeMX
from mochila_node import Node
from talk import Closed, Talker, queued_id

OUTSIDE = "127.0.9.9"
REFUSED = "127.0.8.8"


@pytest.fixture(scope="module")
def mx():
    with FakeMX() as sink:
        yield sink


@pytest.fixture(scope="module")
def node(mx):
    listeners = [{"role": "relay"},
                 {"role": "relay", "strict_syntax": True},
                 {"role": "mx"},
                 {"role": "relay", "offers": []},
                 {"role": "relay", "reject_early_talkers": True},
                 {"role": "relay", "offers": ["size", "chunking", "smtputf8"]},
                 {"address": "::1", "role": "relay"}]
    with Node(listeners=listeners, routes=[("*", mx.address)], relay_from=["127.0.0.1/32", "::1"],
              relay_domains=["served.test"], extra=f"refuse_from: [{REFUSED}]",
              smtp={"recipients_max": 100}) as one:
        yield one


@pytest.fixture
def talk(node):
    with Talker(node.address) as one:
        yield one


@pytest.fixture
def ready(talk):
    talk.ehlo()
    return talk


def test_srv01_greets_first_with_its_name(node):
    with Talker(node.address) as talk:
        assert re.match(rb"^220 [^ ]+\.[^ ]+ ", talk.greeting.raw)
        assert talk.greeting.raw.startswith(b"220 mx.node.test ESMTP")


def test_srv02_refused_client_may_only_quit(node):
    with Talker(node.address, source=REFUSED, greeting=False) as talk:
        greeting = talk.reply()
        assert greeting.code == 554 and greeting.enhanced == "5.7.1"
        for line in ("EHLO x.test", "HELO x.test", "MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test>",
                     "DATA", "RSET", "NOOP", "VRFY a", "FOO"):
            assert talk.cmd(line).code == 503, line
        # The octets of a chunk do not run as commands here either, and it is no way out.
        talk.send(b"BDAT 6 LAST\r\nQUIT\r\n")
        assert talk.reply().code == 503
        assert talk.cmd("MAIL FROM:<a@b.test>").code == 503
        talk.quit()


def test_srv03_all_verbs_in_any_case(talk):
    assert talk.cmd("eHlO a.test").code == 250
    assert talk.cmd("hElO a.test").code == 250
    assert talk.cmd("mAiL fRoM:<a@b.test>").code == 250
    assert talk.cmd("rCpT tO:<a@b.test>").code == 250
    assert talk.cmd("dAtA").code == 354
    assert talk.cmd(".").code == 250
    assert talk.cmd("rSeT").code == 250
    assert talk.cmd("nOoP").code == 250
    assert talk.cmd("vRfY a").code == 252
    assert talk.cmd("hElP").code == 214
    assert talk.cmd("qUiT").code == 221


def test_srv04_shape_of_ehlo_and_helo(talk):
    helo = talk.cmd("HELO a.test")
    assert helo.raw == b"250 mx.node.test\r\n"
    ehlo = talk.cmd("EHLO a.test")
    assert len(ehlo.lines) >= 2
    assert ehlo.lines[0].split(b" ")[0] == b"250-mx.node.test"
    for line in ehlo.lines[1:]:
        assert re.fullmatch(rb"250[- ][A-Z0-9][A-Z0-9-]*( [!-~]+)*", line), line


@pytest.mark.parametrize("line,code", [
    ("EHLO", 501), ("HELO", 501), ("EHLO ", 501), ("EHLO a b", 501), ("EHLO -a.test", 501),
    ("EHLO [127.0.0.1]", 250), ("EHLO [IPv6:::1]", 250), ("EHLO nonsense.invalid", 250),
    ("EHLO [IPv6:zz]", 501), ("EHLO [300.0.0.1]", 501), ("EHLO " + "a" * 300, 501),
])
def test_srv05_argument_of_ehlo(talk, line, code):
    assert talk.cmd(line).code == code


def test_srv05_bad_ehlo_leaves_the_state_alone(ready):
    ready.envelope()
    assert ready.cmd("EHLO").code == 501
    assert ready.cmd("EHLO (oops").code == 501
    assert ready.data(b"\r\nx\r\n").code == 250


def test_srv06_ehlo_resets(ready):
    for again in ("EHLO b.test", "HELO b.test", "RSET"):
        ready.ehlo()
        ready.envelope()
        assert ready.cmd(again).code == 250
        assert ready.cmd("DATA").code in (503, 554)
        assert ready.cmd("RCPT TO:<a@b.test>").code == 503


def test_srv07_order(talk):
    for line in ("MAIL FROM:<a@b.test>", "RCPT TO:<a@b.test>", "DATA"):
        assert talk.cmd(line).code == 503, line
    talk.ehlo()
    assert talk.cmd("RCPT TO:<a@b.test>").code == 503
    assert talk.cmd("DATA").code == 503
    assert talk.cmd("MAIL FROM:<a@b.test>").code == 250
    assert talk.cmd("MAIL FROM:<c@d.test>").code == 503
    assert talk.cmd("DATA").code in (503, 554)
    assert talk.cmd("RCPT TO:<a@b.test>").code == 250
    assert talk.cmd("MAIL FROM:<c@d.test>").code == 503
    assert talk.data(b"\r\nx\r\n").code == 250


def test_srv08_commands_before_ehlo(talk):
    for line, code in (("RSET", 250), ("NOOP", 250), ("NOOP anything at all", 250), ("HELP", 214),
                       ("HELP MAIL", 214), ("VRFY a", 252), ("EXPN l", 502)):
        assert talk.cmd(line).code == code, line
    assert talk.cmd("MAIL FROM:<a@b.test>").code == 503  # RSET is no EHLO


def test_srv09_unknown_commands_keep_the_connection(talk):
    assert talk.codes(["FOO"] * 5 + ["NOOP"]) == [500] * 5 + [250]


def test_srv09_too_many_errors(talk):
    codes = [talk.cmd(f"FOO {i}").code for i in range(19)]
    assert codes == [500] * 19
    reply = talk.cmd("FOO")
    assert (reply.code, reply.enhanced) == (421, "4.7.0")
    assert talk.closed()


def test_srv09_accepted_mail_forgives_errors(ready):
    for _ in range(3):
        assert ready.codes(["FOO"] * 15) == [500] * 15
        ready.mail()


def test_srv10_arguments_where_none_belong(ready):
    for line in ("RSET x", "QUIT x"):
        assert ready.cmd(line).code == 501
    ready.envelope()
    assert ready.cmd("DATA x").code == 501
    assert ready.data(b"\r\nx\r\n").code == 250
    assert ready.cmd("VRFY").code == 501


def test_srv11_null_sender(node, mx, ready):
    ready.mail(sender="", rcpts=["null-sender@dest.test"])
    assert mx.wait_of("null-sender@dest.test").sender == ""
    with Talker(node.addresses[2], source=OUTSIDE) as outside:
        outside.ehlo()
        outside.envelope(sender="", rcpts=["x@served.test"])


def test_srv12_postmaster(node, mx, ready):
    ready.mail(rcpts=["PostMaster"])
    mx.wait_of("postmaster@mx.node.test")
    with Talker(node.addresses[2], source=OUTSIDE) as outside:
        outside.ehlo()
        outside.envelope(rcpts=["PostMaster", "postmaster@served.test", "POSTMASTER@SERVED.TEST"])


def test_srv13_source_route_is_ignored(node, mx):
    with Talker(node.addresses[2], source=OUTSIDE) as outside:
        outside.ehlo()
        outside.mail(rcpts=["@a.test,@b.test:routed@served.test"])
        assert mx.wait_of("routed@served.test").recipients == ["routed@served.test"]
        outside.want(250, "MAIL FROM:<@x.test:a@b.test>")
        assert outside.cmd("RCPT TO:<@served.test:a@other.test>").code == 550


@pytest.mark.parametrize("path,codes", [
    ('"a b"@served.test', {250}), ('"a\\"b"@served.test', {250}), ("a+b=c/d@served.test", {250}),
    ("a@1served.test", {250}), ("{x}!#$%&'*-?^_`|~@served.test", {250}),
    ("a..b@served.test", {501, 553}), (".a@served.test", {501, 553}), ("a.@served.test", {501, 553}),
    ("a@served..test", {501}), ("a@.served.test", {501}), ("a@-x.test", {501}), ("a", {501}),
    ("a@", {501}), ("@served.test", {501}), ("a b@served.test", {501}), ("a@b@served.test", {501}),
    ("a@served.test.", {501}), ("l" * 64 + "@served.test", {250}), ("l" * 65 + "@served.test", {501}),
    ("a@" + "d" * 63 + ".test", {250}), ("a@" + "d" * 64 + ".test", {501}),
    ("a@" + ".".join(["d" * 60] * 4) + ".test", {250}), ("a@" + ".".join(["d" * 60] * 5), {501}),
])
def test_srv14_address_grammar(ready, path, codes):
    ready.want(250, "MAIL FROM:<>")
    reply = ready.cmd(f"RCPT TO:<{path}>")
    assert reply.code in codes
    if reply.code == 501:
        assert reply.enhanced == "5.1.3"
    ready.want(250, "RSET")
    if path:
        sender = ready.cmd(f"MAIL FROM:<{path}>")
        assert sender.code in codes
        if sender.code == 501:
            assert sender.enhanced == "5.1.7"


def test_srv15_case_of_the_local_part(node, mx, ready):
    ready.mail(sender="SenDer@X.test", rcpts=["JoHn@CaSe.test"])
    message = mx.wait_of("JoHn@CaSe.test")
    assert message.sender == "SenDer@X.test"
    with Talker(node.addresses[2], source=OUTSIDE) as outside:
        outside.ehlo()
        outside.envelope(rcpts=["a@SERVED.Test"])


def test_srv16_space_after_the_colon(node, ready):
    assert ready.cmd("MAIL FROM: <a@b.test>").code == 250
    assert ready.cmd("RCPT TO: <a@b.test>").code == 250
    with Talker(node.addresses[1]) as strict:
        strict.ehlo()
        assert strict.cmd("MAIL FROM: <a@b.test>").code == 501
        assert strict.cmd("MAIL FROM:<a@b.test>").code == 250
        assert strict.cmd("RCPT TO: <a@b.test>").code == 501


@pytest.mark.parametrize("which", [0, 1])
def test_srv16_brackets_are_needed(node, which):
    with Talker(node.addresses[which]) as talk:
        talk.ehlo()
        assert talk.cmd("MAIL FROM:a@b.test").code == 501
        assert talk.cmd("MAIL FROM:<a@b.test").code == 501
        talk.want(250, "MAIL FROM:<a@b.test>")
        assert talk.cmd("RCPT TO:a@b.test").code == 501


@pytest.mark.parametrize("cut", [0, 1, 4095, 4096, 4097, 5000])
def test_srv17_long_line_is_never_run(ready, cut):
    line = b"A" * 5000 + b"RCPT TO:<x@y.test>\r\n"
    ready.send(line[:cut])
    ready.send(line[cut:] + b"NOOP\r\n")
    reply = ready.reply()
    assert (reply.code, reply.enhanced) == (500, "5.5.2")
    assert ready.reply().code == 250
    assert ready.no_reply()


def test_srv17_limit_of_a_line(ready):
    assert ready.cmd(b"NOOP " + b"x" * 4089).code == 250      # 4096 with CRLF
    assert ready.cmd(b"NOOP " + b"x" * 4090).code == 500
    ready.send(b"NOOP " + b"x" * 100000 + b"\nQUIT\n\rQUIT\r" + b"y" * 100000 + b"\r\nNOOP\r\n")
    assert ready.reply().code == 500
    assert ready.reply().code == 250


def test_srv17_all_parameters_fit(ready):
    assert ready.cmd("MAIL FROM:<" + "l" * 64 + "@" + ".".join(["d" * 60] * 4) + ".test> SIZE=00000"
                     "000000000000001 BODY=8BITMIME SMTPUTF8").code == 250


@pytest.mark.parametrize("line", [
    b"MAIL FROM:<a\0@b.test>", b"MAIL FROM:<a@b.test>\0", b"MAIL FROM:<a\x01@b.test>",
    b"MAIL FROM:<a\x7f@b.test>", b"MAIL FROM:<a\r@b.test>", b"MAIL FROM:<a\n@b.test>",
    b"MAIL FROM:<a@b.test>\nRCPT TO:<c@d.test>", b"MA\0IL FROM:<a@b.test>", b"NO\rOP",
    b"EHLO a\0.test", b"EHLO a\n.test", b"\0", b"\rNOOP", b"\nNOOP", b"EHLO \xc3\xa9.test",
])
def test_srv18_control_characters(ready, line):
    assert ready.cmd(line).code in (500, 501)
    assert ready.cmd("NOOP").code == 250
    assert ready.cmd("RCPT TO:<c@d.test>").code == 503  # nothing of it was run


def test_srv18_8bit_needs_smtputf8(ready):
    reply = ready.cmd("MAIL FROM:<δ@b.test>".encode())
    assert (reply.code, reply.enhanced) == (550, "5.6.7")
    assert ready.cmd(b"MAIL FROM:<\xff@b.test>").code == 501
    ready.want(250, "MAIL FROM:<a@b.test>")
    reply = ready.cmd("RCPT TO:<δ@b.test>".encode())
    assert (reply.code, reply.enhanced) == (553, "5.6.7")
    assert ready.cmd("VRFY δ".encode()).code in (252, 501, 553)


@pytest.mark.parametrize("params,code", [
    ("FOO=1", 555), ("FOO", 555), ("SIZE=1 SIZE=1", 501), ("BODY=7BIT BODY=7BIT", 501),
    ("BODY=8BITMIME", 250), ("BODY=7BIT", 250), ("body=8bitmime", 250), ("BODY=9BIT", 501),
    ("BODY=", 501), ("BODY", 501), ("SIZE=", 501), ("SIZE", 501), ("SIZE=abc", 501), ("SIZE=-1", 501),
    ("SIZE=1x", 501), ("SIZE=999999999999999999999", 501), ("SMTPUTF8=x", 501), ("SMTPUTF8=", 501),
    ("AUTH=<>", 555), ("RET=HDRS", 555), ("ENVID=x", 555), ("RET=nonsense", 555), ("BY=1;R", 555),
    ("HOLDFOR=1", 555), ("MT-PRIORITY=1", 555), ("REQUIRETLS", 555), ("=1", 501), ("SIZE=1 ", 250),
])
def test_srv19_parameters_of_mail(ready, params, code):
    assert ready.cmd(f"MAIL FROM:<a@b.test> {params}").code == code


@pytest.mark.parametrize("params,code", [
    ("FOO=1", 555), ("NOTIFY=NEVER", 555), ("NOTIFY=x", 555), ("ORCPT=rfc822;a", 555),
    ("SIZE=1", 555), ("RRVS=x", 555)])
def test_srv19_parameters_of_rcpt(ready, params, code):
    ready.want(250, "MAIL FROM:<a@b.test>")
    assert ready.cmd(f"RCPT TO:<a@b.test> {params}").code == code


def test_srv19_parameters_with_helo(talk):
    talk.want(250, "HELO a.test")
    assert talk.cmd("MAIL FROM:<a@b.test> SIZE=1").code == 555
    assert talk.cmd("MAIL FROM:<a@b.test>").code == 250


def test_srv20_hundred_recipients_and_one(mx, ready):
    rcpts = [f"r{i}@many.test" for i in range(100)]
    ready.want(250, "MAIL FROM:<a@b.test>")
    for rcpt in rcpts:
        ready.want(250, f"RCPT TO:<{rcpt}>")
    for _ in range(3):
        reply = ready.cmd("RCPT TO:<late@many.test>")
        assert (reply.code, reply.enhanced) == (452, "4.5.3")
    assert ready.data(b"Subject: many\r\n\r\nx\r\n").code == 250
    mx.wait_of("r99@many.test")
    mx.wait_of("r0@many.test")
    got = [r for m in mx.accepted for r in m.recipients if r.endswith("@many.test")]
    assert sorted(got) == sorted(rcpts)


def test_srv28_no_open_relay(node, mx):
    senders = ["a@served.test", "", "root@localhost", "a@other.test"]
    paths = ["a@other.test", "a@other.test@served.test", "@served.test:a@other.test",
             "a@[192.0.2.9]", "a@[IPv6:2001:db8::1]", "a%other.test@mx.node.test",
             "a@sub.served.test", "a@served.test.other.test", "a@xserved.test"]
    as_local = ["a%other.test@served.test", '"a@other.test"@served.test', "other.test!a@served.test"]
    for which in (0, 2):
        with Talker(node.addresses[which], source=OUTSIDE) as outside:
            outside.ehlo("served.test")
            for sender in senders:
                for path in paths:
                    outside.want(250, f"MAIL FROM:<{sender}>")
                    assert outside.cmd(f"RCPT TO:<{path}>").code in (550, 501), path
                    outside.want(250, "RSET")
                    # Refusals count as errors; a dialog of nothing else would be closed.
                    outside.mail(rcpts=["alive@served.test"])
    with Talker(node.addresses[2], source=OUTSIDE) as outside:
        outside.ehlo()
        for path in as_local:
            outside.mail(rcpts=[path])
    mx.wait_of('a%other.test@served.test')
    for message in mx.accepted:
        if message.sender in ("from@sender.test",):
            continue
        assert not any(r.endswith(("@other.test", "]")) for r in message.recipients)


def test_srv28_relay_from_is_needed(node):
    with Talker(node.address, source=OUTSIDE) as outside:
        outside.ehlo()
        outside.want(250, "MAIL FROM:<a@b.test>")
        reply = outside.cmd("RCPT TO:<a@other.test>")
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert outside.cmd("DATA").code in (503, 554)


def test_srv33_vrfy_and_expn(ready):
    assert ready.cmd("VRFY postmaster").code == 252
    assert ready.cmd("EXPN list").code == 502


def test_srv34_old_commands(ready):
    for line in ("TURN", "SEND FROM:<a@b.test>", "SOML FROM:<a@b.test>", "SAML FROM:<a@b.test>",
                 "ETRN x.test", "STARTTLS", "AUTH PLAIN AAAA"):
        assert ready.cmd(line).code in (502, 500), line


def test_srv37_early_talker(node):
    with Talker(node.addresses[4], greeting=False) as early:
        early.send(b"EHLO a.test\r\n")
        assert early.reply("any").code == 554
        assert early.closed()
    assert "127.0.0.1 talked before the greeting" in node.log_text()
    with Talker(node.addresses[4]) as patient:
        patient.ehlo()
        patient.mail()


def test_srv37_pipelining_that_was_not_offered(node):
    with Talker(node.addresses[3]) as talk:
        talk.ehlo()
        assert [r.code for r in talk.flight(["NOOP", "NOOP", "NOOP"])] == [250] * 3  # in order
    assert "127.0.0.1 pipelines though it was not offered" in node.log_text()
    with Talker(node.addresses[4]) as talk:  # EHLO must be the last of its group
        talk.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n")
        assert talk.reply("any").code == 554
        assert talk.closed()


SESSION = [b"EHLO a.test\r\n", b"FOO\r\n", b"MAIL FROM:<a@b.test> SIZE=100\r\n",
           b"RCPT TO:<bad@@x>\r\n", b"RCPT TO:<one@octets.test>\r\n", b"DATA\r\n",
           b"Subject: one\r\n\r\n..dot\r\n.\r\n", b"BDAT 3\r\nabc", b"MAIL FROM:<>\r\n",
           b"RCPT TO:<two@octets.test>\r\n", b"BDAT 16\r\nSubject: two\r\n\r\n",
           b"BDAT 0\r\n", b"BDAT 12 LAST\r\nb\r\n.\r\nQUIT\r\n", b"BDAT x\r\n", b"RSET\r\n",
           b"NOOP\r\n", b"QUIT\r\n"]
CODES = [250, 500, 250, 501, 250, 354, 250, 503, 250, 250, 250, 250, 250, 501, 250, 250, 221]


@pytest.mark.parametrize("way", ["singly", "by command", "in one flight", "in odd pieces"])
def test_srv38_same_replies_in_any_split(node, mx, way):
    octets = b"".join(SESSION)
    before = len(mx.of("two@octets.test"))
    with Talker(node.address) as talk:
        codes = []
        if way == "singly":
            talk.send_singly(octets)
        elif way == "in one flight":
            talk.send(octets)
        elif way == "in odd pieces":
            for i in range(0, len(octets), 7):
                talk.send(octets[i:i + 7])
        for part in SESSION:
            if way == "by command":
                talk.send(part)
            codes.append(talk.reply(part.decode("latin-1")[:4]).code)
        assert codes == CODES
        assert talk.closed()
    both = [mx.wait_of("one@octets.test", before + 1), mx.wait_of("two@octets.test", before + 1)]
    one, two = [m[-1] if isinstance(m, list) else m for m in both]
    assert one.split()[1] == b"Subject: one\r\n\r\n.dot\r\n"
    assert two.split()[1] == b"Subject: two\r\n\r\nb\r\n.\r\nQUIT\r\n"


def test_srv38_a_long_flight_is_answered_in_order(ready):
    lines = []
    for i in range(500):
        lines += ["NOOP", f"VRFY a{i}", "RSET"]
    assert [r.code for r in ready.flight(lines)] == [250, 252, 250] * 500


def test_ext07_one_write(ready):
    replies = ready.flight(["MAIL FROM:<a@b.test>", "RCPT TO:<@@>", "RCPT TO:<c@d.test>", "DATA"])
    assert [r.code for r in replies] == [250, 501, 250, 354]
    assert ready.cmd(".").code == 250
    replies = ready.flight(["MAIL FROM:<a@b.test>", "RCPT TO:<@@>", "DATA"])
    assert replies[0].code == 250 and replies[1].code == 501 and replies[2].code in (503, 554)


def test_ext70_each_keyword_can_be_switched_off(node):
    with Talker(node.address) as talk:
        assert set(talk.keywords()) == {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING",
                                        "SMTPUTF8", "SIZE", "HELP"}
    with Talker(node.addresses[3]) as talk:
        assert set(talk.keywords()) == {"HELP"}
        for params in ("SIZE=1", "SIZE=x", "BODY=8BITMIME", "SMTPUTF8"):
            assert talk.cmd(f"MAIL FROM:<a@b.test> {params}").code == 555, params
        talk.envelope()
        assert talk.cmd("BDAT 0 LAST").code == 502
        assert talk.data(b"\r\nx\r\n").code == 250
    with Talker(node.addresses[5]) as talk:
        keywords = talk.keywords()
        assert "CHUNKING" in keywords and "SIZE" in keywords and "PIPELINING" not in keywords
        # EXT-20: SMTPUTF8 never without 8BITMIME
        assert "SMTPUTF8" not in keywords and "8BITMIME" not in keywords
        assert talk.cmd("MAIL FROM:<a@b.test> SMTPUTF8").code == 555


def test_ext15_ext62_ext63_nothing_else_is_offered(talk):
    keywords = talk.keywords()
    for word in ("BINARYMIME", "BURL", "RRVS", "MTRK", "NO-SOLICITING", "CONPERM", "ETRN", "AUTH",
                 "STARTTLS", "DSN", "XCLIENT"):
        assert word not in keywords


def test_ipv6_listener(node, mx):
    with Talker(node.addresses[6]) as talk:
        talk.ehlo("[IPv6:::1]")
        talk.mail(rcpts=["six@dest.test"])
    trace, _ = mx.wait_of("six@dest.test").split()
    assert b"([IPv6:::1])" in trace or b"[IPv6:::1]" in trace


def test_half_closed_client_gets_its_answers(node, mx):
    with Talker(node.address) as talk:
        talk.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<half@closed.test>\r\nDATA\r\n"
                  b"Subject: half\r\n\r\nx\r\n.\r\nNOOP\r\n")
        talk.half_close()
        codes = [talk.reply(to).code for to in ("EHLO", "MAIL", "RCPT", "DATA", "DOT", "NOOP")]
        assert codes == [250, 250, 250, 354, 250, 250]
        assert talk.closed()
    mx.wait_of("half@closed.test")


def test_saf05_no_log_injection(node):
    """What the client says cannot make a line of its own in any log."""
    with Talker(node.address) as talk:
        talk.ehlo("evil.test")
        wild = '"a\\"b\\\\c d"@x.test'
        message = queued_id(_send(talk, f'<{wild}>'))
    events = node.wait_event("accepted", id=message)
    assert events[0]["sender"] == wild and events[0]["helo"] == "evil.test"
    for line in node.event_lines():
        assert all(c >= 0x20 for c in line), line
    hostile = [b"EHLO a)\n2026-11-21T00:00:00.000Z err mochilad[1] fake", b"MAIL FROM:<\x1b[31m>",
               b"EHLO \x1b]0;x\x07", b"FOO\rbar\nbaz\0"]
    with Talker(node.address) as talk:
        for line in hostile:
            assert talk.cmd(line).code in (500, 501, 503)
    log = node.log_text()
    assert "\x1b" not in log and "\0" not in log and "fake" not in log


def _send(talk, path):
    talk.want(250, f"MAIL FROM:{path}")
    talk.want(250, "RCPT TO:<log@dest.test>")
    return talk.data(b"Subject: log\r\n\r\nx\r\n")


def test_closed_means_closed(ready):
    ready.send(b"QUIT\r\nNOOP\r\nMAIL FROM:<a@b.test>\r\n")
    assert ready.reply().code == 221
    with pytest.raises(Closed):
        ready.reply()
