"""What a remote server says, and what becomes of the recipients: rows CLI-* of the client's duties."""
import re
import time

import pytest

from delivery import (CONTENT, SLOW, FakeMX, Talker, balanced, delivered, one_event, one_route, quick_node, reasons, rows,
                      send, send_many, verbs, wait_for, wait_reason, wait_state)
from fake_mx import Close, Delay, Hang


def scripted(table):
    """A script from {verb: reply}."""
    return lambda c, verb, line: table.get(verb)


# --- greeting and EHLO ---

@pytest.mark.parametrize("code", [500, 502, 550])
def test_cli_01_helo_when_ehlo_is_refused(code):
    with FakeMX(scripted({"EHLO": f"{code} what?"})) as mx, quick_node(one_route(mx)) as node:
        send(node)
        message = mx.wait_messages(1)[0]
        assert verbs(message.connection)[:2] == ["EHLO", "HELO"]
        assert b"SIZE=" not in message.mail and message.by == "DATA"


def test_cli_01_ehlo_421_and_4yz_defer_without_helo():
    for reply in ("421 busy", "450 not now"):
        with FakeMX(scripted({"EHLO": reply})) as mx, quick_node(one_route(mx)) as node:
            send(node)
            one_event_deferred = node.wait_event("deferred")[0]
            assert one_event_deferred["stage"] == "ehlo"
            assert all("HELO" not in verbs(c) for c in mx.connections)
            assert balanced(node)["bounced"] == 0


def test_cli_02_ehlo_name_and_address_of_the_lane():
    lanes = (("127.0.0.31", {"ehlo": "one.lane.test"}), ("127.0.0.32", {"ehlo": "two.lane.test"}))
    names = {"127.0.0.31": b"one.lane.test", "127.0.0.32": b"two.lane.test"}
    with FakeMX() as mx, quick_node(one_route(mx), lanes=lanes) as node:
        send_many(node, [f"u@domain{i}.test" for i in range(16)])
        mx.wait_messages(16)
        seen = {m.connection.source for m in mx.accepted}
        assert seen == set(names), "both lanes are used"
        for m in mx.accepted:
            assert m.connection.lines[0] == b"EHLO " + names[m.connection.source]
            assert names[m.connection.source] in m.split()[0] or b"mx.node.test" in m.split()[0]


ODD_OK = ["250", "250 ", "250-one\n250-two\n250 three", "299 strange but two", "250\ttabbed",
          "250 ok" + "\n250 more" * 19, "250  two  spaces"]


@pytest.mark.parametrize("reply", ODD_OK)
def test_cli_03_odd_replies_are_read_by_their_first_digit(reply):
    if "\n" in reply:
        parts = reply.split("\n")
        raw = b"".join(b"250-" + p[4:].encode() + b"\r\n" for p in parts[:-1])
        raw += b"250 " + parts[-1][4:].encode() + b"\r\n"
    else:
        raw = reply.encode() + b"\r\n"
    with FakeMX(scripted({v: raw for v in ("MAIL", "RCPT", "DOT")}), offers=()) as mx, \
            quick_node(one_route(mx)) as node:
        send(node)
        node.wait_event("delivered")
        assert delivered(node, 1)


def test_cli_03_a_multi_line_451_defers_with_its_whole_text():
    text = b"451-4.3.0 first line\r\n451-4.3.0 second line\r\n451 4.3.0 third\r\n"
    with FakeMX(lambda c, v, l: text if v == "DOT" and len(mx.messages) == 1 else None, offers=()) as mx, \
            quick_node(one_route(mx)) as node:
        send(node)
        event = node.wait_event("deferred")[0]
        for part in ("first line", "second line", "third"):
            assert part in event["reply"]
        assert event["status"] == "4.3.0"
        node.wait_event("delivered")


def test_cli_03_a_reply_that_is_none_closes_and_retries():
    with FakeMX(lambda c, v, l: b"hello there\r\n" if v == "MAIL" and c.number == 0 else None,
                offers=()) as mx, quick_node(one_route(mx)) as node:
        send(node)
        assert node.wait_event("deferred")[0]["reason"] == "protocol"
        mx.wait_messages(1)


def test_cli_04_554_greeting_defers_and_bounces_nobody():
    with FakeMX(scripted({"CONNECT": Close("554 5.7.1 go away")})) as mx, \
            quick_node(one_route(mx), client={"host_retry": "30s", "host_retry_max": "60s"},
                       queue=SLOW) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(5)])
        event = one_event(node, "deferred")  # one is told, the others wait for the site
        assert event["stage"] == "greeting" and "554 5.7.1 go away" in event["reply"] or \
            "go away" in event["reply"]
        assert event["reason"] == "policy-block"
        assert len(mx.connections) == 1
        assert reasons(node) == {"policy-block": 1, "backoff": 4}
        ledger = balanced(node)
        assert ledger["bounced"] == 0 and ledger["bounce_due"] == 0


# --- recipients ---

def test_cli_05_each_recipient_has_its_own_fate():
    said = []

    def script(c, verb, line):
        if verb != "RCPT":
            return None
        said.append(line)
        for who, reply in ((b"<no@", "550 5.1.1 no such user"), (b"<later@", "451 4.3.0 busy")):
            if who in line and len(said) <= 3:
                return reply
        return None

    with FakeMX(script) as mx, quick_node(one_route(mx)) as node:
        ident = send(node, "yes@dest.test", "no@dest.test", "later@dest.test")
        mx.wait_messages(2)
        assert [m.recipients for m in mx.accepted] == [["yes@dest.test"], ["later@dest.test"]]
        assert one_event(node, "failed", id=ident)["rcpt"] == "no@dest.test"
        assert one_event(node, "deferred", id=ident)["rcpt"] == "later@dest.test"
        wait_for("the ledger", lambda: node.ledger()["delivered"] == 2)
        ledger = balanced(node)
        assert (ledger["bounced"], ledger["bounce_due"], ledger["queued"]) == (1, 1, 0)
        assert "no such user" in rows(node, state="bounce-due")[0]["last_reply"]


@pytest.mark.parametrize("code,offers", [("452 4.5.3", ()), ("552 5.5.3", ("PIPELINING",)),
                                         ("452", ("PIPELINING", "CHUNKING")), ("552", ())])
def test_cli_06_too_many_recipients_go_on_at_once(code, offers):
    def script(c, verb, line):
        return f"{code} too many recipients" if verb == "RCPT" and len(c.rcpts) >= 10 else None

    rcpts = [f"u{i:02}@dest.test" for i in range(25)]
    with FakeMX(script, offers=offers) as mx, quick_node(one_route(mx)) as node:
        send(node, *rcpts)
        mx.wait_messages(3)
        assert [m.recipients for m in mx.accepted] == [rcpts[:10], rcpts[10:20], rcpts[20:]]
        assert len(mx.connections) == 1
        node.wait_queue_empty()
        assert not node.events("deferred") and not node.events("failed")
        assert delivered(node, 25)


def test_cli_06_the_rest_survives_a_lost_connection():
    def script(c, verb, line):
        if verb == "RCPT" and len(c.rcpts) >= 2:
            return "452 4.5.3 too many"
        return Close() if verb == "DOT" and c.number == 0 and len(mx.accepted) == 1 else None

    with FakeMX(script) as mx, quick_node(one_route(mx)) as node:
        send(node, *[f"u{i}@dest.test" for i in range(5)])
        node.wait_queue_empty()
        assert sorted(r for m in mx.accepted for r in m.recipients) == \
            [f"u{i}@dest.test" for i in range(5)]
        assert delivered(node, 5)


def test_cli_06_mailbox_full_is_not_too_many():
    def script(c, verb, line):
        return "452 4.2.2 mailbox full" if verb == "RCPT" and b"<full@" in line else None

    with FakeMX(script) as mx, quick_node(one_route(mx), queue=SLOW) as node:
        send(node, "ok@dest.test", "full@dest.test")
        assert one_event(node, "deferred")["reason"] == "mailbox-full"
        assert len(mx.wait_messages(1)) == 1
        assert reasons(node) == {"mailbox-full": 1}


def test_cli_07_no_data_when_every_recipient_is_refused():
    for offers in ((), ("PIPELINING",)):
        with FakeMX(scripted({"RCPT": "550 5.1.1 no such user"}), offers=offers) as mx, \
                quick_node(one_route(mx)) as node:
            send(node, "a@dest.test", "b@dest.test")
            node.wait_event("failed", count=2)
            assert mx.messages == []
            if not offers:
                assert "DATA" not in verbs(mx.connections[0])
            wait_for("RSET", lambda: "RSET" in verbs(mx.connections[0]))
            assert balanced(node)["bounced"] == 2


def test_cli_07_a_354_without_recipients_gets_a_lone_dot():
    table = {"RCPT": "550 5.1.1 no such user", "DATA": "354 go on then", "DOT": "554 no recipients"}
    with FakeMX(scripted(table), offers=("PIPELINING",)) as mx, quick_node(one_route(mx)) as node:
        send(node)
        event = one_event(node, "failed")
        assert event["stage"] == "rcpt" and "no such user" in event["reply"]
        wait_for("the dot", lambda: mx.messages)
        assert mx.messages[0].wire == b""
        assert balanced(node)["bounced"] == 1


def test_cli_07_no_content_without_354():
    with FakeMX(lambda c, v, l: "451 4.3.0 no disk" if v == "DATA" and c.number == 0 and
                c.count("DATA") == 1 else None, offers=("PIPELINING",)) as mx, \
            quick_node(one_route(mx)) as node:
        send(node)
        event = node.wait_event("deferred")[0]
        assert event["stage"] == "data"
        message = mx.wait_messages(1)[0]
        assert message.split()[1] == CONTENT


@pytest.mark.parametrize("offers", [(), ("CHUNKING",)])
def test_cli_08_what_came_by_bdat_leaves_as_one_well_formed_message(offers):
    """Lone dots, bare CR and LF within BDAT: CRLF only at the other end, and one message."""
    body = (b"Subject: t\r\n\r\na\n.\nb\r\n.\r\nMAIL FROM:<x@y.test>\r\n..two\r\nc\rd\r\n")
    with FakeMX(offers=offers) as mx, \
            quick_node(one_route(mx), listeners=[{"bare": "normalise"}]) as node:
        with Talker(node.address) as t:
            t.ehlo()
            t.envelope()
            assert t.bdat(body[:20], body[20:]).code == 250
        message = mx.wait_messages(1)[0]
        assert b"\r" not in message.wire.replace(b"\r\n", b"")
        assert b"\n" not in message.wire.replace(b"\r\n", b"")
        assert message.split()[1] == (b"Subject: t\r\n\r\na\r\n.\r\nb\r\n.\r\nMAIL FROM:<x@y.test>\r\n"
                                      b"..two\r\nc\r\nd\r\n")
        assert message.by == "DATA" and len(mx.messages) == 1
        node.wait_queue_empty()
        assert delivered(node, 1)


# --- the dot ---

def test_cli_09_lost_after_the_dot_is_retried_and_said():
    with FakeMX(lambda c, v, l: Close() if v in ("DOT", "LAST") and c.number == 0 else None) as mx, \
            quick_node(one_route(mx)) as node:
        ident = send(node)
        mx.wait_messages(1)
        event = one_event(node, "deferred", id=ident)
        assert event["reason"] == "in-doubt" and "possible duplicate" in event["reply"]
        assert len(mx.messages) == 2
        node.wait_event("delivered", id=ident)
        assert delivered(node, 1)


def test_cli_09_a_slow_reply_to_the_dot_is_waited_for():
    with FakeMX(lambda c, v, l: Delay(1.5) if v in ("DOT", "LAST") else None) as mx, \
            quick_node(one_route(mx), client={"mail": "300ms", "rcpt": "300ms", "data": "300ms",
                                              "dot": "20s"}) as node:
        send(node)
        node.wait_event("delivered")
        assert len(mx.messages) == 1 and not node.events("deferred")


def test_cli_10_421_after_the_third_message_costs_nothing():
    def script(c, verb, line):
        return Close("421 4.3.2 enough") if verb == "MAIL" and c.count("MAIL") == 4 else None

    with FakeMX(script) as mx, quick_node(one_route(mx, connections=1)) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(9)])
        mx.wait_messages(9)
        node.wait_queue_empty()
        assert not node.events("deferred"), "a 421 is no failure of a message"
        assert all(e["attempt"] == 1 for e in node.events("attempt"))
        assert delivered(node, 9)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
def test_cli_10_421_anywhere_uses_up_no_attempt(verb):
    with FakeMX(lambda c, v, l: Close("421 4.3.2 not now") if v == verb and c.number < 2 else None,
                offers=("PIPELINING",)) as mx, quick_node(one_route(mx)) as node:
        send(node)
        mx.wait_messages(1)
        node.wait_event("delivered")
        assert not node.events("deferred") and not node.events("failed")
        assert {e["attempt"] for e in node.events("attempt")} == {1}
        assert len(mx.connections) >= 3


def test_cli_10_a_message_that_always_gets_421_does_not_block_others():
    def script(c, verb, line):
        return Close("421 4.7.0 not this one") if verb == "MAIL" and b"<bad@" in line else None

    with FakeMX(script) as mx, quick_node(one_route(mx, connections=1)) as node:
        send(node, "first@dest.test", sender="bad@sender.test")
        send_many(node, [f"u{i}@dest.test" for i in range(3)])
        mx.wait_messages(3)
        wait_for("the others' end", lambda: balanced(node)["queued"] == 1)


@pytest.mark.parametrize("reply,queued", [("550 5.7.1 no", 0), ("451 4.3.0 later", 2)])
def test_cli_11_a_refusal_after_the_dot_is_for_all(reply, queued):
    with FakeMX(scripted({"DOT": reply, "LAST": reply})) as mx, \
            quick_node(one_route(mx), queue=SLOW) as node:
        send(node, "a@dest.test", "b@dest.test")
        node.wait_event("deferred" if queued else "failed", count=2)
        ledger = balanced(node)
        assert (ledger["queued"], ledger["bounced"]) == (queued, 2 - queued)


def test_cli_12_251_is_success_and_551_is_final():
    def script(c, verb, line):
        if verb == "RCPT":
            return "251 2.1.5 will forward to <x@else.test>" if b"<moved@" in line else \
                "551 5.1.6 please try <y@else.test>"
        return None

    with FakeMX(script) as mx, quick_node(one_route(mx)) as node:
        send(node, "moved@dest.test", "gone@dest.test")
        node.wait_event("delivered")
        assert one_event(node, "failed")["rcpt"] == "gone@dest.test"
        assert [m.recipients for m in mx.accepted] == [["moved@dest.test"]]
        assert not any(b"else.test" in line for c in mx.connections for line in c.lines)


STAGES = [("CONNECT", "greeting"), ("EHLO", "ehlo"), ("MAIL", "mail"), ("RCPT", "rcpt"),
          ("DATA", "data"), ("DOT", "dot")]


@pytest.mark.parametrize("verb,key", STAGES)
def test_cli_13_each_stage_has_its_own_timeout(verb, key):
    times = {k: "20s" for _, k in STAGES}
    times[key] = "200ms"
    with FakeMX(lambda c, v, l: Hang() if v == verb and c.number == 0 else None, offers=()) as mx, \
            quick_node(one_route(mx), client=times) as node:
        send(node)
        event = node.wait_event("deferred", seconds=10)[0]
        assert event["stage"] == key
        assert event["reason"] == ("in-doubt" if verb == "DOT" else "timeout")
        mx.wait_messages(1)


def test_cli_13_there_is_no_timer_for_the_transaction():
    slow = {v: Delay(0.25) for v in ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT")}
    with FakeMX(scripted(slow), offers=()) as mx, \
            quick_node(one_route(mx), client={k: "1s" for _, k in STAGES}) as node:
        send(node, *[f"u{i}@dest.test" for i in range(6)])
        node.wait_event("delivered", count=6)
        assert not node.events("deferred")
        assert len(mx.connections) == 1


def test_cli_16_a_refused_mail_is_about_that_message_only():
    def script(c, verb, line):
        return "550 5.1.8 bad sender" if verb == "MAIL" and b"<bad@" in line else None

    with FakeMX(script) as mx, quick_node(one_route(mx, connections=1)) as node:
        send(node, sender="bad@sender.test")
        one_event(node, "failed")
        send(node, sender="good@sender.test")
        mx.wait_messages(1)
        assert delivered(node, 1)


def test_cli_17_no_bounce_is_due_for_the_null_sender():
    with FakeMX(scripted({"RCPT": "550 5.1.1 no such user"})) as mx, \
            quick_node(one_route(mx)) as node:
        send(node, sender="")
        node.wait_event("failed")
        node.wait_queue_empty()
        ledger = balanced(node)
        assert (ledger["bounced"], ledger["bounce_due"]) == (1, 0)
        assert mx.messages == []


def test_cli_25_quit_without_an_answer_changes_nothing():
    with FakeMX(scripted({"QUIT": Hang()})) as mx, \
            quick_node(one_route(mx, messages_per_connection=1, connections=1),
                       client={"quit": "200ms"}) as node:
        send_many(node, ["a@dest.test", "b@dest.test"])
        mx.wait_messages(2)
        wait_for("QUIT", lambda: "QUIT" in verbs(mx.connections[0]))
        node.wait_queue_empty()
        assert delivered(node, 2)


# --- the table of replies ---

def test_reply_450_47x_suspends_the_lane_at_the_site():
    def script(c, verb, line):
        return "450 4.7.1 slow down" if verb == "RCPT" and len(mx.connections) == 1 and \
            c.count("RCPT") == 1 else None

    with FakeMX(script) as mx, quick_node(one_route(mx, connections=1),
                                          client={"host_retry": "30s", "host_retry_max": "60s"},
                                          queue=SLOW) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(3)])
        one_event(node, "deferred")
        wait_reason(node, "suspended", 2)
        why = node.api("why", what="dest.test")["rows"]
        assert any(r["reason"] == "suspended" and 0 < r["until_s"] <= 40 for r in why), why
        assert "slow down" in "".join(r.get("last_reply", "") for r in why)
        assert sum(c.count("MAIL") for c in mx.connections) == 1


def test_reply_550_57x_block_suspends_and_bounces_one_message_only():
    with FakeMX(scripted({"MAIL": "550 5.7.1 your IP is blocked by spamhaus"})) as mx, \
            quick_node(one_route(mx, connections=1), client={"host_retry_max": "10m"}) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(4)])
        assert one_event(node, "failed")["reason"] == "policy-block"
        wait_reason(node, "suspended", 3)
        assert balanced(node)["bounced"] == 1


def test_reply_5yz_that_says_try_again_is_deferred():
    with FakeMX(lambda c, v, l: "550 temporary problem, try again" if v == "DOT" and
                len(mx.messages) == 1 else None, offers=()) as mx, quick_node(one_route(mx)) as node:
        send(node)
        one_event(node, "deferred")
        mx.wait_messages(1)
        assert balanced(node)["bounced"] == 0


def test_reply_4yz_that_is_lasting_is_retried_slowly():
    with FakeMX(scripted({"DOT": "451 permanently deferred, will not succeed"}), offers=()) as mx, \
            quick_node(one_route(mx), queue={"retry_max": "1h", "retry_max_transactional": "1h"}) as node:
        send(node)
        assert one_event(node, "deferred")["reason"] == "lasting"
        assert wait_state(node, "waiting")[0]["due_in_s"] > 3000
        assert len(mx.messages) == 1


@pytest.mark.parametrize("code", [501, 504, 555])
def test_reply_to_an_extension_we_used_drops_it_once(code):
    def script(c, verb, line):
        return f"{code} 5.5.4 no such parameter" if verb == "MAIL" and b"SIZE=" in line else None

    with FakeMX(script) as mx, quick_node(one_route(mx, connections=1)) as node:
        send_many(node, ["a@dest.test", "b@dest.test"])
        mx.wait_messages(2)
        assert sum(b"SIZE=" in line for line in mx.connections[0].lines) == 1
        node.wait_queue_empty()
        assert delivered(node, 2) and not node.events("deferred")


@pytest.mark.parametrize("offers", [("CHUNKING",), ("CHUNKING", "PIPELINING")])
def test_reply_to_bdat_that_was_offered_drops_it_once(offers):
    with FakeMX(scripted({"LAST": "502 5.5.1 not today"}), offers=offers) as mx, \
            quick_node(one_route(mx, connections=1)) as node:
        send(node)
        message = mx.wait_messages(1)[0]
        assert message.by == "DATA" and message.split()[1] == CONTENT
        node.wait_queue_empty()
        assert not node.events("deferred") and not node.events("failed")


def test_reply_to_parameters_that_is_always_the_same_is_final():
    with FakeMX(scripted({"MAIL": "555 5.5.4 never"})) as mx, quick_node(one_route(mx)) as node:
        send(node)
        assert one_event(node, "failed")["stage"] == "mail"
        assert sum(c.count("MAIL") for c in mx.connections) == 2


def test_a_refusal_in_the_middle_of_the_content_decides():
    """552 while a large message is still being sent: one attempt, one fate, no loop."""
    def script(c, verb, line):
        if verb == "DATA":
            c.put("354 go on")
            c.exactly(10000)
            return Close("552 5.3.4 too big")
        return None

    with FakeMX(script, offers=()) as mx, quick_node(one_route(mx)) as node:
        send(node, content=CONTENT + (b"x" * 998 + b"\r\n") * 3000)
        event = one_event(node, "failed")
        assert event["reason"] == "too-big" and event["status"] == "5.3.4"
        assert len(mx.connections) == 1


# --- extensions of the other side ---

def test_ext_02_size_is_said_and_a_small_limit_respected():
    with FakeMX(offers=("SIZE 1000",)) as mx, quick_node(one_route(mx)) as node:
        send(node, "small@dest.test")
        message = mx.wait_messages(1)[0]
        assert int(re.search(rb"SIZE=(\d+)", message.mail)[1]) == len(message.body)
        ident = send(node, "big@dest.test", content=CONTENT + b"x" * 70 + b"\r\n" * 1000)
        event = one_event(node, "failed", id=ident)
        assert event["reason"] == "too-big" and event["status"] == "5.3.4"
        assert sum(c.count("MAIL") for c in mx.connections) == 1


def test_ext_02_size_0_is_no_limit():
    with FakeMX(offers=("SIZE 0",)) as mx, quick_node(one_route(mx)) as node:
        send(node)
        mx.wait_messages(1)


def test_many_messages_a_peer_cannot_take_are_no_recursion():
    with FakeMX(offers=("SIZE 100",)) as mx, quick_node(one_route(mx, connections=1),
                                                       queue={"hold": True}) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(3000)], content=CONTENT + b"x\r\n" * 100)
        assert node.ledger()["queued"] == 3000
        node.cli("release", "all")
        wait_for("all failed", lambda: node.ledger()["bounced"] == 3000)
        assert sum(c.count("MAIL") for c in mx.connections) == 0


def eight_bit_message(lines=1):
    """Text in two encodings, a picture and a plain part; what the parts decode to."""
    from email.message import EmailMessage
    from email.policy import SMTP
    text = "Grüße aus Köln, 5 €\n.a dot in front\n" * lines
    m = EmailMessage(policy=SMTP.clone(cte_type="8bit"))
    m["From"], m["To"], m["Subject"] = "a@sender.test", "to@dest.test", "eight bits"
    m.set_content(text, cte="8bit")
    m.add_alternative("<p>ÄÖÜ</p>\n", subtype="html", cte="8bit", charset="iso-8859-1")
    m.add_attachment(b"plain ascii\r\n", maintype="application", subtype="x-plain", cte="7bit")
    return m.as_bytes()


def decoded_parts(octets):
    import email
    from email.policy import SMTP
    m = email.message_from_bytes(octets, policy=SMTP)
    return [(p.get_content_type(), p.get_payload(decode=True)) for p in m.walk()
            if not p.is_multipart()]


@pytest.mark.parametrize("lines", [1, 12000])
def test_ext_04_8bit_is_converted_for_a_host_without_8bitmime(lines):
    """12,000 lines are a body in chunks."""
    original = eight_bit_message(lines)
    assert any(c > 127 for c in original)
    with FakeMX(offers=("PIPELINING", "SIZE 0")) as mx, quick_node(one_route(mx)) as node:
        stuffed = re.sub(rb"(?m)^\.", b"..", original)
        send(node, content=stuffed, params="BODY=8BITMIME")
        message = mx.wait_messages(1)[0]
        assert all(c < 128 for c in message.wire)
        assert b"BODY=" not in message.mail
        assert int(re.search(rb"SIZE=(\d+)", message.mail)[1]) == len(message.body)
        assert decoded_parts(message.split()[1]) == decoded_parts(original)
        assert all(len(line) <= 998 for line in message.wire.split(b"\r\n"))


def test_ext_04_with_8bitmime_every_octet_stays():
    original = eight_bit_message()
    with FakeMX(offers=("8BITMIME",)) as mx, quick_node(one_route(mx)) as node:
        send(node, content=re.sub(rb"(?m)^\.", b"..", original), params="BODY=8BITMIME")
        message = mx.wait_messages(1)[0]
        assert message.mail.endswith(b"BODY=8BITMIME")
        assert message.split()[1] == original


def test_ext_04_what_cannot_be_converted_fails_and_others_go_on():
    inner = b"Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\n\xff\r\n"
    with FakeMX(offers=()) as mx, quick_node(one_route(mx, connections=1)) as node:
        ident = send(node, content=b"MIME-Version: 1.0\r\n" + inner)
        event = one_event(node, "failed", id=ident)
        assert event["status"] == "5.6.3" and event["reason"] == "no-8bit"
        send(node)
        mx.wait_messages(1)
        assert len(mx.connections) == 1


def test_ext_06_no_enhanced_code_gets_one_from_the_text():
    with FakeMX(scripted({"RCPT": "550 no such user"})) as mx, quick_node(one_route(mx)) as node:
        send(node)
        event = one_event(node, "failed")
        assert event["status"] == "5.1.1" and event["reply"].endswith("no such user")


def test_ext_07_envelope_in_one_write_when_pipelining_is_offered():
    with FakeMX(offers=("PIPELINING",)) as mx, quick_node(one_route(mx)) as node:
        send(node, *[f"u{i}@dest.test" for i in range(5)])
        message = mx.wait_messages(1)[0]
        times = [t for t, line in message.connection.commands
                 if line[:4].upper() in (b"MAIL", b"RCPT", b"DATA")]
        assert len(times) == 7


def test_ext_07_without_pipelining_each_command_waits():
    waiting = []

    def script(c, verb, line):
        if verb in ("MAIL", "RCPT", "DATA"):
            time.sleep(0.02)
            waiting.append(c.input)  # nothing may have come before the reply
        return None

    with FakeMX(script, offers=()) as mx, quick_node(one_route(mx)) as node:
        send(node, "a@dest.test", "b@dest.test")
        mx.wait_messages(1)
        assert waiting and set(waiting) == {b""}


def test_ext_08_replies_are_counted():
    """The same codes in another order belong to other recipients."""
    order = iter(["250 2.1.5 ok", "550 5.1.1 no", "250 2.1.5 ok", "451 4.3.0 later"])

    def script(c, verb, line):
        return next(order, None) if verb == "RCPT" else None

    with FakeMX(script, offers=("PIPELINING",)) as mx, \
            quick_node(one_route(mx), queue=SLOW) as node:
        send(node, *[f"u{i}@dest.test" for i in range(4)])
        mx.wait_messages(1)
        assert sorted(e["rcpt"] for e in node.wait_event("delivered", 2)) == \
            ["u0@dest.test", "u2@dest.test"]
        assert one_event(node, "failed")["rcpt"] == "u1@dest.test"
        assert one_event(node, "deferred")["rcpt"] == "u3@dest.test"


def test_ext_14_bdat_when_offered_and_data_otherwise():
    large = CONTENT + (b"y" * 998 + b"\r\n") * 1500
    dotted = CONTENT + b"..\r\n"
    for offers, content, by in (((), CONTENT, "DATA"), (("CHUNKING",), CONTENT, "BDAT"),
                                (("CHUNKING", "PIPELINING"), large, "BDAT"),
                                (("CHUNKING",), dotted, "DATA")):
        with FakeMX(offers=offers) as mx, quick_node(one_route(mx)) as node:
            send(node, content=content)
            message = mx.wait_messages(1)[0]
            assert message.by == by
            expected = content if content is not dotted else CONTENT + b".\r\n"
            assert message.split()[1] == expected
            assert by == "DATA" or sum(message.chunks) == len(message.body)


def test_ext_21_22_smtputf8_only_when_needed_and_never_without_offer():
    utf8 = "Subject: grüße\r\n\r\nhallo\r\n".encode()
    with FakeMX(offers=("8BITMIME",)) as mx, quick_node(one_route(mx)) as node:
        send(node, "ascii@dest.test", params="SMTPUTF8")
        assert b"SMTPUTF8" not in mx.wait_messages(1)[0].mail
        a = send(node, "δοκιμή@dest.test", params="SMTPUTF8")
        assert one_event(node, "failed", id=a)["status"] == "5.6.7"
        b = send(node, "x@dest.test", params="SMTPUTF8", content=utf8)
        assert one_event(node, "failed", id=b)["status"] == "5.6.9"
    with FakeMX(offers=("8BITMIME", "SMTPUTF8")) as mx, quick_node(one_route(mx)) as node:
        send(node, "ascii@dest.test", params="SMTPUTF8")
        assert b"SMTPUTF8" not in mx.wait_messages(1)[0].mail
        send(node, "δοκιμή@dest.test", params="SMTPUTF8")
        message = mx.wait_messages(2)[1]
        assert message.mail.endswith(b"SMTPUTF8")
        assert message.recipients == ["δοκιμή@dest.test"]
