"""Mail that waits: retries, expiry in every state, holds, and what the operator may do with it."""
import time

import pytest

from delivery import (SLOW, FakeMX, balanced, one_event, one_route, quick_node, reasons, rows, send,
                      send_many, wait_for, wait_reason, wait_state)
from fake_mx import Close, Hang
from mochila_node import free_port


def always(**table):
    return lambda c, verb, line: table.get(verb)


def dead_route():
    """A port where nobody listens."""
    return [("*", f"127.0.0.1:{free_port()}")]


# --- retries ---

def test_cli_14_the_schedule_doubles_up_to_its_cap():
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue={"retry_first": "1s", "retry_max": "4s",
                                             "retry_max_transactional": "4s"}) as node:
        send(node)
        events = node.wait_event("deferred", count=4)
        waits = [round(e["due"] - e["t"]) for e in events[:4]]
        assert [abs(w - x) <= 1 for w, x in zip(waits, (1, 2, 4, 4))] == [True] * 4, waits
        assert [e["attempt"] for e in events[:4]] == [1, 2, 3, 4]


def test_cli_14_jitter_spreads_messages_and_keeps_recipients_together():
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue={"retry_first": "1000s", "retry_max": "2000s",
                                             "retry_max_transactional": "2000s",
                                             "retry_jitter_percent": 20}) as node:
        for i in range(20):
            send(node, f"a{i}@dest.test", f"b{i}@dest.test")
        node.wait_event("deferred", count=40)
        due = {}
        for row in wait_state(node, "waiting", 40):
            assert 780 <= row["due_in_s"] <= 1200
            due.setdefault(row["id"], []).append(row["due_in_s"])
        assert all(max(d) - min(d) <= 2 for d in due.values()), due
        firsts = [d[0] for d in due.values()]
        assert max(firsts) - min(firsts) > 50


def test_cli_14_a_dead_host_is_asked_by_time_not_by_messages():
    with FakeMX(always(CONNECT=Close("554 5.3.2 down"))) as mx, \
            quick_node(one_route(mx), client={"host_retry": "1s", "host_retry_max": "1s"},
                       queue=SLOW) as node:
        start = time.monotonic()
        send_many(node, [f"u{i}@dest.test" for i in range(1000)])
        wait_for("three probes", lambda: len(mx.connections) >= 3)
        seconds = time.monotonic() - start
        assert len(mx.connections) <= seconds / 0.8 + 2
        deferred = node.events("deferred")
        assert len(deferred) <= len(mx.connections)
        assert balanced(node)["queued"] == 1000


def test_cli_14_mail_flows_again_when_the_host_is_back():
    port = free_port()
    with quick_node([("*", f"127.0.0.1:{port}")], queue=SLOW) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(50)])
        wait_reason(node, "backoff", 10)
        with FakeMX(port=port) as mx:
            mx.wait_messages(40)
            assert all(e["reason"] in ("connect-failed", "backoff")
                       for e in node.events("deferred"))


def test_cli_23_greylisting_passes_same_lane_sender_and_order():
    seen = {}

    def script(c, verb, line):
        if verb != "RCPT":
            return None
        first = c.lines[[i for i, x in enumerate(c.lines) if x[:4] == b"MAIL"][-1] + 1]
        key = (c.source, c.mail, first)
        seen.setdefault(key, time.monotonic())
        if time.monotonic() - seen[key] < 0.5:
            return "450 4.7.1 greylisted, try again in 1 minute"
        return None

    rcpts = [f"u{i}@dest.test" for i in range(8)]
    lanes = tuple(f"127.0.0.{n}" for n in range(41, 49))
    with FakeMX(script) as mx, quick_node(one_route(mx), lanes=lanes, workers=2) as node:
        send(node, *rcpts, sender="verp+123@sender.test")
        message = mx.wait_messages(1)[0]
        assert message.recipients == rcpts and message.sender == "verp+123@sender.test"
        assert len({c.source for c in mx.connections}) == 1
        assert len(seen) == 1, seen
        assert {e["reason"] for e in node.events("deferred")} == {"greylisted"}
        node.wait_queue_empty()
        assert len(mx.accepted) == 1


def test_sticky_lane_over_a_restart():
    lanes = tuple(f"127.0.0.{n}" for n in range(41, 49))
    domains = [f"u@domain{i}.test" for i in range(12)]
    with FakeMX() as mx, quick_node(one_route(mx), lanes=lanes, workers=2) as node:
        for _ in range(2):
            send_many(node, domains)
            node.wait_queue_empty()
            node.restart()
        used = {}
        for m in mx.wait_messages(24):
            used.setdefault(m.recipients[0], set()).add(m.connection.source)
        assert all(len(sources) == 1 for sources in used.values()), used
        assert len({s for sources in used.values() for s in sources}) > 2


# --- expiry, in every state ---

LIFETIME = {"lifetime": "2s", **SLOW}


def expires(node, ident, **fields):
    event = one_event(node, "expired", id=ident)
    assert event["status"] in ("5.4.7", "4.4.7")
    wait_for("the fate", lambda: node.ledger()["expired"] >= 1)
    assert balanced(node)["queued"] == 0
    return event


def test_cli_15_expiry_while_waiting_tells_the_last_reply():
    with FakeMX(always(DOT="451 4.3.0 the disk is full"), offers=()) as mx, \
            quick_node(one_route(mx), queue=LIFETIME) as node:
        event = expires(node, send(node))
        assert "the disk is full" in event["reply"]
        assert node.ledger()["bounce_due"] == 1
        assert len(mx.messages) == 1


def test_cli_15_expiry_while_the_site_is_backed_off():
    with quick_node(dead_route(), queue=LIFETIME,
                    client={"host_retry": "60s", "host_retry_max": "60s"}) as node:
        send(node, "a@dest.test")
        wait_state(node, "waiting")
        ident = send(node, "b@dest.test")
        wait_reason(node, "backoff")
        one_event(node, "expired", id=ident)
        wait_for("both", lambda: node.ledger()["expired"] == 2)
        assert balanced(node)["queued"] == 0


def test_cli_15_expiry_while_held():
    with FakeMX() as mx, quick_node(one_route(mx), queue=LIFETIME) as node:
        node.cli("hold", "tenant", "default")
        expires(node, send(node))
        assert mx.connections == []


def test_cli_15_expiry_of_a_held_message():
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue=LIFETIME) as node:
        ident = send(node)
        wait_state(node, "waiting")
        node.cli("hold", "message", ident)
        wait_state(node, "held")
        expires(node, ident)
        assert len(mx.messages) == 1


def test_cli_15_expiry_in_flight_ends_with_the_attempt():
    with FakeMX(always(MAIL=Hang())) as mx, \
            quick_node(one_route(mx), queue=LIFETIME, client={"mail": "4s"}) as node:
        ident = send(node)
        wait_state(node, "in-flight")
        expires(node, ident)
        assert len(mx.connections) == 1


def test_cli_15_delivered_after_all_is_delivered():
    """The attempt outlasts the lifetime, and succeeds: one fate, and that is it."""
    from fake_mx import Delay
    with FakeMX(always(DOT=Delay(3.5), LAST=Delay(3.5))) as mx, \
            quick_node(one_route(mx), queue=LIFETIME) as node:
        send(node)
        node.wait_event("delivered")
        ledger = balanced(node)
        assert (ledger["delivered"], ledger["expired"]) == (1, 0)
        assert len(mx.messages) == 1


def test_cli_15_expiry_while_looking_up():
    import socket
    with socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        servers = [f"127.0.0.1:{mute.getsockname()[1]}"]
        with quick_node(queue=LIFETIME, smtp={"check_recipient_null_mx": False}, dns={"enabled": True, "servers": servers, "query": "10s",
                                             "total": "20s"}) as node:
            ident = send(node)
            wait_state(node, "resolving")
            expires(node, ident)


def test_null_sender_has_its_own_lifetime():
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue={"bounce_lifetime": "2s", **SLOW}) as node:
        send(node, sender="")
        stays = send(node, "other@dest.test")
        wait_for("expiry", lambda: node.ledger()["expired"] == 1)
        assert [r["id"] for r in rows(node)] == [stays]
        assert node.ledger()["bounce_due"] == 0
        assert mx.messages


def test_tenant_lifetime_goes_before_the_queues():
    tenants = "tenants:\n  codes: {pool: main, from: [127.0.0.77/32], lifetime: 2s}\n"
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue=SLOW, tenants=tenants) as node:
        short = send(node, source="127.0.0.77")
        longer = send(node, "other@dest.test")
        expires_only = one_event(node, "expired", id=short)
        assert expires_only["tenant"] == "codes"
        assert [r["id"] for r in rows(node, state="waiting")] == [longer]
        assert mx.messages


# --- holds ---

HOLDS = [("all", (), "held-all"), ("lane", ("127.0.0.11",), "held-lane"),
         ("tenant", ("default",), "held-tenant"), ("site", ("dest.test",), "held-site")]


@pytest.mark.parametrize("kind,value,reason", HOLDS)
def test_hold_and_release(kind, value, reason):
    with FakeMX() as mx, quick_node(one_route(mx)) as node:
        node.cli("hold", kind, *value)
        ident = send(node)
        wait_reason(node, reason)
        assert rows(node)[0]["id"] == ident
        why = node.cli("why", "dest.test").stdout
        assert "held" in why
        assert mx.connections == []
        node.cli("release", kind, *value)
        mx.wait_messages(1)
        node.wait_queue_empty()


def test_hold_of_a_site_by_its_key_holds_all_its_domains():
    with FakeMX() as mx, quick_node(one_route(mx)) as node:
        send(node)
        mx.wait_messages(1)
        key = node.api("sites")["rows"][0]["site"]
        node.cli("hold", "site", key)
        send_many(node, ["a@one.test", "b@two.test"])
        wait_reason(node, "held-site", 2)
        node.cli("release", "site", key)
        mx.wait_messages(3)


def test_hold_of_one_message_lets_others_pass():
    def script(c, verb, line):
        return "451 4.3.0 later" if verb == "DOT" and len(mx.messages) <= 1 else None

    with FakeMX(script, offers=()) as mx, quick_node(one_route(mx), queue=SLOW) as node:
        ident = send(node)
        wait_state(node, "waiting")
        node.cli("hold", "message", ident)
        assert wait_state(node, "held")[0]["reason"] == "held-message"
        send(node, "other@dest.test")
        mx.wait_messages(1)
        node.cli("retry", ident)
        assert len(mx.messages) == 2
        node.cli("release", "message", ident)
        mx.wait_messages(2)


def test_a_hold_meets_what_was_in_flight():
    """The attempt under way fails after the hold: the message is held then, not tried again."""
    gate = []

    def script(c, verb, line):
        if verb == "DOT":
            wait_for("the hold", lambda: gate)
            return "451 4.3.0 later"
        return None

    with FakeMX(script, offers=()) as mx, quick_node(one_route(mx)) as node:
        ident = send(node)
        wait_for("the dot", lambda: mx.messages)
        node.cli("hold", "message", ident)
        gate.append(1)
        wait_state(node, "held")
        assert len(mx.messages) == 1
        node.cli("release", "message", ident)
        wait_for("another attempt", lambda: len(mx.messages) >= 2)


def test_holds_survive_a_restart():
    with FakeMX() as mx, quick_node(one_route(mx)) as node:
        node.cli("hold", "tenant", "default")
        send(node)
        wait_reason(node, "held-tenant")
        node.restart()
        wait_reason(node, "held-tenant")
        assert mx.connections == []
        node.cli("release", "tenant", "default")
        mx.wait_messages(1)


# --- retry, delete, why ---

def test_retry_now_goes_before_its_time():
    with FakeMX(lambda c, v, l: "451 4.3.0 later" if v == "DOT" and len(mx.messages) == 1 else None,
                offers=()) as mx, quick_node(one_route(mx), queue=SLOW) as node:
        send(node)
        wait_state(node, "waiting")
        node.cli("retry", "now", "--domain", "dest.test")
        mx.wait_messages(1)
        node.wait_queue_empty()


def test_retry_now_ends_a_back_off():
    port = free_port()
    with quick_node([("*", f"127.0.0.1:{port}")], queue=SLOW,
                    client={"host_retry": "60s", "host_retry_max": "60s"}) as node:
        send_many(node, ["a@dest.test", "b@dest.test"])
        wait_reason(node, "backoff")
        with FakeMX(port=port) as mx:
            node.cli("retry", "now", "--domain", "dest.test")
            mx.wait_messages(2)


def test_delete_shows_first_and_deletes_then():
    with FakeMX(always(DOT="451 4.3.0 later"), offers=()) as mx, \
            quick_node(one_route(mx), queue=SLOW) as node:
        send(node, "keep@other.test")
        send(node, "a@dest.test", "b@dest.test")
        wait_state(node, "waiting", 3)
        seen = node.api("delete", "POST", domain="dest.test", preview=1)
        assert seen["matched"] == 2 and len(seen["sample"]) == 2
        assert node.ledger()["queued"] == 3
        node.cli("delete", "--domain", "dest.test", "--yes")
        wait_for("the deletion", lambda: node.ledger()["deleted"] == 2)
        assert [r["rcpt"] for r in rows(node)] == ["keep@other.test"]
        assert len(node.wait_event("deleted", 2)) == 2
        assert balanced(node)["bounce_due"] == 0
        assert mx.messages


def test_delete_of_what_is_in_flight_waits_for_its_end():
    with FakeMX(always(MAIL=Hang())) as mx, \
            quick_node(one_route(mx), queue=SLOW, client={"mail": "1500ms"}) as node:
        ident = send(node)
        wait_state(node, "in-flight")
        node.cli("delete", ident, "--yes")
        wait_for("the deletion", lambda: node.ledger()["deleted"] == 1)
        assert balanced(node)["queued"] == 0
        assert len(mx.connections) == 1


def test_why_tells_reason_reply_and_time():
    with FakeMX(always(RCPT="450 4.2.0 not today"), offers=()) as mx, \
            quick_node(one_route(mx), queue=SLOW) as node:
        ident = send(node)
        wait_state(node, "waiting")
        for what in ("dest.test", "to@dest.test", ident):
            row = next(r for r in node.api("why", what=what)["rows"] if r["reason"] == "remote-temp")
            assert "not today" in row["last_reply"] and row["text"]
        text = node.cli("why", "dest.test").stdout
        assert "not today" in text
        assert mx.connections
        assert reasons(node) == {"remote-temp": 1}
