"""From a domain to a connection: rows DNS-*, and CLI-21, 22, 26, 28, 29 of what depends on them."""
import pytest

from delivery import (SLOW, Exchangers, FakeMX, balanced, free_port, one_event, quick_node, rows, send,
                      send_many, wait_for, wait_reason, wait_state)
from fake_dns import FakeDNS, Slow, Ttl
from fake_mx import Close, Delay
from mochila_node import PATIENCE_S

ONE, TWO, THREE = "127.0.2.1", "127.0.2.2", "127.0.2.3"


def world(server, port, *, client=None, smtp=None, **more):
    """A node that finds its way by this name server; exchangers listen on `port`."""
    return quick_node(dns={"enabled": True, "servers": [server.address], "query": "1s", "total": "2s"},
                      client={"port": port, "allow_loopback": True, **(client or {})},
                      smtp={"check_recipient_null_mx": False, **(smtp or {})}, **more)


def hosts(*addresses):
    """A records mxN.hosts.test for these addresses."""
    return {(f"mx{i + 1}.hosts.test", "A"): [a] for i, a in enumerate(addresses)}


def mx(*numbers):
    """MX records of equal preference."""
    return [f"10 mx{n}.hosts.test." for n in numbers]


# --- DNS-01 ---

def test_dns_01_mx_and_cname_of_the_domain():
    table = {**hosts(ONE), ("dest.test", "MX"): mx(1), ("alias.test", "CNAME"): ["dest.test."]}
    with FakeDNS(table) as server, Exchangers(ONE) as world_mx:
        with world(server, world_mx.port) as node:
            send_many(node, ["a@dest.test", "b@alias.test"])
            world_mx[ONE].wait_messages(2)
            assert not server.asked("dest.test", "A")


def test_ext_23_dns_hears_a_labels_only():
    table = {**hosts(ONE), ("xn--hxajbheg2az3al.test", "MX"): mx(1)}
    with FakeDNS(table) as server, Exchangers(ONE) as world_mx:
        with world(server, world_mx.port) as node:
            send(node, "u@παράδειγμα.test", params="SMTPUTF8")
            send(node, "a@xn--hxajbheg2az3al.test")
            world_mx[ONE].wait_messages(2)
            # The address itself goes out as it was written.
            assert any("παράδειγμα".encode() in r for m in world_mx[ONE].messages for r in m.rcpts)
            assert server.asked("xn--hxajbheg2az3al.test", "MX")
            assert all(set(q[0]) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for q in server.asked())


def test_dns_01_nxdomain_is_final_at_once():
    with FakeDNS({}) as server, world(server, free_port()) as node:
        send(node, "a@nowhere.test")
        event = one_event(node, "failed")
        assert event["status"] == "5.1.2" and event["reason"] == "dns-nxdomain"
        assert not server.asked("nowhere.test", "A")
        assert balanced(node)["bounce_due"] == 1


@pytest.mark.parametrize("action", ["SERVFAIL", "REFUSED", "TIMEOUT"])
def test_dns_01_no_answer_defers(action):
    with FakeDNS({("dest.test", "MX"): action}) as server, \
            world(server, free_port(), queue=SLOW) as node:
        send(node)
        event = one_event(node, "deferred")
        assert event["status"] == "4.4.3" and event["reason"] == "dns-temp"
        assert balanced(node)["queued"] == 1


def test_dns_01_no_answer_now_and_one_later():
    def flaky(n):
        return "SERVFAIL" if n < 2 else Ttl(300, mx(1))

    with FakeDNS({**hosts(ONE), ("dest.test", "MX"): flaky}) as server, Exchangers(ONE) as m:
        with world(server, m.port, queue={"retry_first": "1s", "retry_max": "2s"}) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert node.events("deferred")[0]["reason"] == "dns-temp"


def test_dns_01_implicit_mx():
    with FakeDNS({("dest.test", "A"): [ONE]}) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert server.asked("dest.test", "MX")


def test_dns_01_neither_mx_nor_address():
    with FakeDNS({("dest.test", "TXT"): ["x"]}) as server, world(server, free_port()) as node:
        send_many(node, ["a@dest.test", "b@dest.test", "c@dest.test"])
        for event in node.wait_event("failed", 3):
            assert event["status"] == "5.4.4" and event["reason"] == "dns-no-address"


# --- DNS-02 ---

def test_dns_02_mx_without_address_never_means_the_domains_own():
    table = {("dest.test", "MX"): ["10 nonexist.test.", "20 nodata.test."], ("dest.test", "A"): [ONE],
             ("nodata.test", "TXT"): ["x"]}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            assert one_event(node, "failed")["status"] == "5.4.4"
            assert m[ONE].connections == []


def test_dns_02_one_target_for_now_unknown_defers():
    table = {("dest.test", "MX"): ["10 nonexist.test.", "20 flaky.test."], ("flaky.test", "A"): "SERVFAIL",
             ("flaky.test", "AAAA"): "SERVFAIL"}
    with FakeDNS(table) as server, world(server, free_port(), queue=SLOW) as node:
        send(node)
        assert one_event(node, "deferred")["reason"].startswith("dns-")
        assert balanced(node)["bounced"] == 0


# --- DNS-03 ---

def test_dns_03_equal_preference_is_shuffled():
    table = {**hosts(ONE, TWO), ("dest.test", "MX"): mx(1, 2)}
    with FakeDNS(table) as server, Exchangers(ONE, TWO) as m:
        with world(server, m.port, limits={"connections": 5, "messages_per_connection": 1,
                                           "messages_per_s": 0, "new_connections_per_s": 0}) as node:
            send_many(node, [f"u{i}@dest.test" for i in range(200)])
            node.wait_queue_empty()
            one = len(m[ONE].accepted)
            assert one + len(m[TWO].accepted) == 200
            assert 65 <= one <= 135, one  # 100 +- 5 sigma


def test_dns_03_lower_preference_first_and_the_next_when_it_fails():
    table = {**hosts(ONE, TWO, THREE),
             ("dest.test", "MX"): ["30 mx3.hosts.test.", "10 mx1.hosts.test.", "20 mx2.hosts.test."]}
    down = {ONE: lambda c, v, l: Close("554 5.3.2 down") if v == "CONNECT" else None}
    with FakeDNS(table) as server, Exchangers(ONE, TWO, THREE, scripts=down) as m:
        with world(server, m.port) as node:
            send(node)
            m[TWO].wait_messages(1)
            assert len(m[ONE].connections) == 1 and m[THREE].connections == []
            assert not node.events("deferred"), "the same attempt goes on"


def test_dns_03_all_addresses_of_a_host_are_tried():
    table = {("dest.test", "MX"): ["10 many.hosts.test."],
             ("many.hosts.test", "A"): ["127.0.2.77", "127.0.2.78", ONE]}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert not node.events("deferred")


def test_dns_03_554_on_every_mx_defers_cli_04():
    table = {**hosts(ONE, TWO), ("dest.test", "MX"): mx(1, 2)}

    def down(c, verb, line):
        return Close("554 5.7.1 blocked") if verb == "CONNECT" else None

    with FakeDNS(table) as server, Exchangers(ONE, TWO, scripts={ONE: down, TWO: down}) as m:
        with world(server, m.port, queue=SLOW) as node:
            send(node)
            one_event(node, "deferred")
            assert len(m[ONE].connections) == len(m[TWO].connections) == 1
            assert balanced(node)["bounced"] == 0


def test_sites_with_another_order_of_the_same_hosts_keep_it():
    table = {**hosts(ONE, TWO),
             ("a.test", "MX"): ["10 mx1.hosts.test.", "20 mx2.hosts.test."],
             ("b.test", "MX"): ["10 mx2.hosts.test.", "20 mx1.hosts.test."]}
    with FakeDNS(table) as server, Exchangers(ONE, TWO) as m:
        with world(server, m.port) as node:
            send_many(node, ["u@a.test", "u@b.test"])
            assert m[ONE].wait_messages(1)[0].recipients == ["u@a.test"]
            assert m[TWO].wait_messages(1)[0].recipients == ["u@b.test"]


# --- DNS-04 ---

def test_dns_04_null_mx_is_final_without_an_address_query():
    with FakeDNS({("dest.test", "MX"): ["0 ."], ("dest.test", "A"): [ONE]}) as server, \
            world(server, free_port()) as node:
        send(node)
        event = one_event(node, "failed")
        assert event["status"] == "5.1.10" and event["reason"] == "null-mx"
        assert not server.asked("dest.test", "A") and not server.asked("", "A")


def test_dns_04_the_dot_beside_others_is_ignored():
    with FakeDNS({**hosts(ONE), ("dest.test", "MX"): ["0 .", *mx(1)]}) as server, \
            Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)


# --- DNS-05 ---

def test_dns_05_mx_target_that_is_an_alias():
    table = {("dest.test", "MX"): ["10 alias.test."], ("alias.test", "CNAME"): ["mx1.hosts.test."],
             **hosts(ONE)}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)


def test_dns_05_mx_target_that_is_an_address():
    with FakeDNS({("dest.test", "MX"): [f"10 {ONE}."]}) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert not server.asked(ONE)


# --- DNS-06 ---

@pytest.mark.parametrize("address", ["127.0.2.1", "0.0.0.1", "224.0.0.5", "255.255.255.255", "10.1.2.3",
                                     "169.254.1.1"])
def test_dns_06_addresses_that_are_never_contacted(address):
    with FakeDNS({**hosts(address), ("dest.test", "MX"): mx(1)}) as server, Exchangers(ONE) as m:
        with world(server, m.port, client={"allow_loopback": False}) as node:
            send(node)
            event = one_event(node, "failed")
            assert event["status"] == "5.4.6" and event["reason"] == "loop"
            assert m[ONE].connections == []


def test_dns_06_our_own_listener_is_never_contacted():
    with FakeDNS({("dest.test", "A"): ["127.0.0.1"]}) as server:
        port = free_port()
        with world(server, port, listeners=[{"address": "127.0.0.1", "port": port}]) as node:
            send(node)
            assert one_event(node, "failed")["status"] == "5.4.6"
            assert node.ledger()["accepted"] == 1


# --- DNS-07 ---

def test_dns_07_address_literals():
    with FakeDNS({}) as server, Exchangers(ONE) as m:
        with world(server, m.port, smtp={"allow_address_literals": True}) as node:
            send(node, f"u@[{ONE}]")
            assert m[ONE].wait_messages(1)[0].recipients == [f"u@[{ONE}]"]
            assert server.asked() == []


# --- DNS-08 ---

def test_dns_08_only_hosts_better_than_us():
    table = {**hosts(ONE, TWO), ("dest.test", "MX"): ["10 mx1.hosts.test.", "20 MX.node.test.",
                                                      "30 mx2.hosts.test."]}

    def down(c, verb, line):
        return Close("421 down") if verb == "CONNECT" else None

    with FakeDNS(table) as server, Exchangers(ONE, TWO, scripts={ONE: down}) as m:
        with world(server, m.port, queue=SLOW) as node:
            send(node)
            one_event(node, "deferred")
            assert m[TWO].connections == [] and len(m[ONE].connections) == 1


def test_dns_08_we_are_the_best_ourselves():
    table = {**hosts(ONE), ("dest.test", "MX"): ["10 mx.node.test.", "20 mx1.hosts.test."]}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            event = one_event(node, "failed")
            assert event["status"] == "5.4.6" and event["reason"] == "loop"
            assert m[ONE].connections == []


# --- DNS-09 ---

def test_dns_09_truncated_answers_are_asked_for_by_tcp():
    many = [f"{n + 10} a-host-with-a-long-name-so-that-it-does-not-fit-{n}.hosts.test." for n in range(60)]
    table = {**hosts(ONE), ("dest.test", "MX"): "TC", ("dest.test", "MX-tcp"): [*many, *mx(1)[:0],
                                                                                "1 mx1.hosts.test."]}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert ("dest.test", "MX", "tcp") in server.queries


def test_dns_09_answers_are_kept_for_their_ttl():
    with FakeDNS({**hosts(ONE), ("dest.test", "MX"): Ttl(300, mx(1))}) as server, \
            Exchangers(ONE) as m:
        with world(server, m.port) as node:
            for i in range(5):
                send(node, f"u{i}@dest.test")
                m[ONE].wait_messages(i + 1)
            assert len(server.asked("dest.test", "MX")) == 1


# --- DNS-12 ---

def test_dns_12_domains_of_one_mx_set_share_limits_and_connections():
    table = hosts(ONE, TWO)
    for i in range(50):
        both = mx(1, 2) if i % 2 else mx(2, 1)
        table[f"d{i}.test", "MX"] = [x.replace("10 ", f"{10 + i} ") for x in both]

    def slow(c, verb, line):
        return Delay(0.02) if verb in ("DOT", "LAST") else None

    with FakeDNS(table) as server, Exchangers(ONE, TWO, scripts={ONE: slow, TWO: slow}) as m:
        with world(server, m.port, limits={"connections": 3, "messages_per_s": 0,
                                           "new_connections_per_s": 0}) as node:
            send_many(node, [f"u@d{i}.test" for i in range(50)])
            node.wait_queue_empty()
            assert len(m.accepted) == 50
            assert len(m.connections) <= 3
            sites = node.api("sites")["rows"]
            assert len(sites) == 1, sites


def test_cli_26_two_domains_on_one_mx_are_two_transactions_on_one_connection():
    table = {**hosts(ONE), ("a.test", "MX"): mx(1), ("b.test", "MX"): mx(1)}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port, limits={"connections": 1}) as node:
            send(node, "u@a.test", "v@b.test", "w@a.test")
            got = sorted(x.recipients for x in m[ONE].wait_messages(2))
            assert got == [["u@a.test", "w@a.test"], ["v@b.test"]]
            assert len(m[ONE].connections) == 1


# --- DNS-15 ---

def test_dns_15_one_slow_domain_delays_no_other():
    table = {**hosts(ONE), ("slow.test", "MX"): Slow(30, mx(1))}
    for i in range(100):
        table[f"d{i}.test", "MX"] = mx(1)
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port, limits={"messages_per_s": 0}) as node:
            send(node, "u@slow.test")
            send_many(node, [f"u@d{i}.test" for i in range(100)])
            m[ONE].wait_messages(100, seconds=PATIENCE_S)
            assert all("slow.test" not in x.recipients[0] for x in m[ONE].accepted)
            wait_for("the others' end", lambda: {r["domain"] for r in rows(node)} == {"slow.test"})


# --- what the client does with addresses ---

def test_cli_21_each_pool_has_its_addresses():
    pools = ("pools:\n  first: {lanes: [{address: 127.0.0.61, ehlo: one.test.example}]}\n"
             "  second: {lanes: [{address: 127.0.0.62, ehlo: two.test.example}]}\n")
    tenants = ("tenants:\n  a: {pool: first, from: [127.0.0.71/32]}\n"
               "  b: {pool: second, from: [127.0.0.72/32]}\n")
    with FakeDNS({("dest.test", "A"): [ONE]}) as server, Exchangers(ONE) as m:
        with world(server, m.port, pools=pools, tenants=tenants) as node:
            send(node, "a@dest.test", source="127.0.0.71")
            send(node, "b@dest.test", source="127.0.0.72")
            sources = {x.recipients[0]: (x.connection.source, x.connection.lines[0])
                       for x in m[ONE].wait_messages(2)}
            assert sources == {"a@dest.test": ("127.0.0.61", b"EHLO one.test.example"),
                               "b@dest.test": ("127.0.0.62", b"EHLO two.test.example")}


def test_cli_22_aaaa_that_nobody_answers_is_no_obstacle():
    table = {("dest.test", "MX"): ["10 both.hosts.test."], ("both.hosts.test", "A"): [ONE],
             ("both.hosts.test", "AAAA"): ["::1"]}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port) as node:
            send(node)
            m[ONE].wait_messages(1)
            assert not node.events("deferred")


def test_cli_22_a_lane_of_the_other_family_takes_over():
    table = {("v6.test", "MX"): ["10 six.hosts.test."], ("six.hosts.test", "AAAA"): ["::1"],
             ("v4.test", "MX"): mx(1), **hosts(ONE)}
    lanes = ("127.0.0.11", ("::1", {"ehlo": "six.node.test"}))
    with FakeDNS(table) as server, Exchangers(ONE) as m, FakeMX(address="::1", port=m.port) as six:
        with world(server, m.port, lanes=lanes) as node:
            send_many(node, [f"u{i}@{d}" for i in range(4) for d in ("v4.test", "v6.test")])
            m[ONE].wait_messages(4)
            six.wait_messages(4)
            assert {x.connection.source for x in six.accepted} == {"::1"}
            assert not node.events("failed")


def test_cli_22_no_lane_of_the_family_defers():
    table = {("v6.test", "MX"): ["10 six.hosts.test."], ("six.hosts.test", "AAAA"): ["::1"]}
    with FakeDNS(table) as server, world(server, free_port(), queue=SLOW) as node:
        send(node, "u@v6.test")
        event = one_event(node, "deferred")
        assert "no address that lane" in event["reply"]
        assert balanced(node)["bounced"] == 0


def test_cli_28_a_route_goes_before_mx_and_asks_nothing():
    table = {**hosts(TWO), ("dest.test", "MX"): mx(1)}
    with FakeDNS(table) as server, Exchangers(ONE, TWO) as m:
        with world(server, m.port, routes=[("dest.test", f"[{ONE}]:{m.port}")]) as node:
            send_many(node, ["u@dest.test", "v@DEST.test"])
            m[ONE].wait_messages(2)
            assert server.asked() == [] and m[TWO].connections == []


def test_cli_28_a_route_by_name_looks_up_the_address_only():
    with FakeDNS({**hosts(ONE), ("mx1.hosts.test", "MX"): mx(2)}) as server, Exchangers(ONE) as m:
        with world(server, m.port, routes=[(".test", f"mx1.hosts.test:{m.port}")]) as node:
            send(node, "u@any.test")
            m[ONE].wait_messages(1)
            assert server.asked(kind="MX") == []


def test_cli_29_a_dead_address_is_not_tried_again_at_once():
    """The first host answers 554, the second works: later connections begin with the second."""
    table = {**hosts(ONE, TWO), ("dest.test", "MX"): ["10 mx1.hosts.test.", "20 mx2.hosts.test."]}

    def down(c, verb, line):
        return Close("554 5.3.2 down") if verb == "CONNECT" else None

    with FakeDNS(table) as server, Exchangers(ONE, TWO, scripts={ONE: down}) as m:
        with world(server, m.port, limits={"messages_per_connection": 1, "connections": 1}) as node:
            send_many(node, [f"u{i}@dest.test" for i in range(6)])
            m[TWO].wait_messages(6)
            assert len(m[ONE].connections) == 1 and len(m[TWO].connections) == 6


def test_a_known_dead_site_waits_with_backoff():
    table = {**hosts("127.0.2.99"), ("dest.test", "MX"): mx(1)}
    with FakeDNS(table) as server, world(server, free_port(), queue=SLOW,
                                         client={"host_retry": "60s",
                                                 "host_retry_max": "60s"}) as node:
        send(node, "a@dest.test")
        assert wait_state(node, "waiting")[0]["reason"] == "connect-failed"
        send(node, "b@dest.test")
        wait_reason(node, "backoff")
        wait_for("one attempt", lambda: len(node.events("deferred")) == 1)
