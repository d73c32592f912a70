"""How fast and by whom: limits of a lane at a site, fair shares, classes, connections used again."""
import threading
import time

from delivery import (CONTENT, FakeMX, Talker, balanced, delivered, one_route, quick_node, rows, send, send_many,
                      verbs, wait_for, wait_reason)
from fake_mx import Close, Delay

TWO_TENANTS = ("tenants:\n"
               "  crowd: {pool: main, from: [127.0.0.71/32]}\n"
               "  single: {pool: main, from: [127.0.0.72/32]}\n"
               "  codes: {pool: main, from: [127.0.0.73/32], class: transactional}\n")


QUIT_S = 0.05  # the reply to QUIT takes so long: until then the peer counts the connection


def most_at_once(connections):
    """The highest number of connections that were open at one time, by what the peer has promised to end."""
    edges = [(c.opened, 1) for c in connections]
    edges += [(c.commands[-1][0] + 0.8 * QUIT_S, -1) for c in connections if verbs(c)[-1:] == ["QUIT"]]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


def test_connection_limit_of_a_lane():
    slow = {"DOT": Delay(0.02), "LAST": Delay(0.02), "QUIT": Delay(QUIT_S)}
    with FakeMX(lambda c, v, l: slow.get(v)) as mx, \
            quick_node(one_route(mx, connections=3, messages_per_connection=4)) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(60)])
        mx.wait_messages(60)
        assert most_at_once(mx.connections) == 3
        assert max(sum(1 for m in mx.accepted if m.connection is c) for c in mx.connections) <= 4
        assert len(mx.connections) >= 15
        assert all(verbs(c)[-1] == "QUIT" for c in mx.connections[:12])
        assert not node.events("deferred")


def test_connection_limit_is_one_for_each_lane():
    with FakeMX(lambda c, v, l: Delay(0.05) if v in ("DOT", "LAST") else None) as mx, \
            quick_node(one_route(mx, connections=2), lanes=("127.0.0.51", "127.0.0.52")) as node:
        send_many(node, [f"u@domain{i}.test" for i in range(40)])
        mx.wait_messages(40)
        for lane in ("127.0.0.51", "127.0.0.52"):
            assert most_at_once([c for c in mx.connections if c.source == lane]) == 2


def test_message_rate_of_a_lane():
    with FakeMX() as mx, quick_node(one_route(mx, messages_per_s=10)) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(30)])
        wait_reason(node, "rate")
        times = [m.time for m in mx.wait_messages(30)]
        assert times[29] - times[0] >= 1.7  # ten at once, then ten a second
        assert times[9] - times[0] < 0.9


def test_new_connections_a_second():
    with FakeMX() as mx, quick_node(one_route(mx, new_connections_per_s=4,
                                              messages_per_connection=1)) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(12)])
        mx.wait_messages(12)
        opened = sorted(c.opened for c in mx.connections)
        assert len(opened) == 12 and opened[11] - opened[0] >= 1.7


def test_recipients_of_a_transaction():
    rcpts = [f"u{i:02}@dest.test" for i in range(25)]
    with FakeMX() as mx, quick_node(one_route(mx, recipients=10, connections=1)) as node:
        send(node, *rcpts)
        mx.wait_messages(3)
        assert [m.recipients for m in mx.accepted] == [rcpts[:10], rcpts[10:20], rcpts[20:]]
        assert len(mx.connections) == 1
        node.wait_queue_empty()
        assert delivered(node, 25)


def test_ext_50_limits_of_the_other_side():
    with FakeMX(offers=("LIMITS RCPTMAX=3 MAILMAX=2", "PIPELINING")) as mx, \
            quick_node(one_route(mx, connections=1)) as node:
        send(node, *[f"u{i}@dest.test" for i in range(7)])
        mx.wait_messages(3)
        assert [len(m.rcpts) for m in mx.accepted] == [3, 3, 1]
        assert [m.connection.number for m in mx.accepted] == [0, 0, 1]


# --- connections used again ---

def test_cli_19_next_message_on_the_same_connection():
    with FakeMX() as mx, quick_node(one_route(mx, connections=1)) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(10)])
        mx.wait_messages(10)
        assert len(mx.connections) == 1
        assert verbs(mx.connections[0]).count("EHLO") == 1
        assert "RSET" not in verbs(mx.connections[0])


def test_cli_20_a_silent_close_after_n_messages_is_no_failure():
    def script(c, verb, line):
        return Close() if verb == "MAIL" and c.count("MAIL") == 5 else None

    with FakeMX(script, offers=("PIPELINING",)) as mx, \
            quick_node(one_route(mx, connections=1),
                       client={"host_retry": "60s", "host_retry_max": "60s"}) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(20)])
        mx.wait_messages(20)
        node.wait_queue_empty()
        assert not node.events("deferred")
        assert delivered(node, 20)


def test_cli_20_an_idle_connection_closed_by_the_peer_is_no_failure():
    def script(c, verb, line):
        if verb in ("DOT", "LAST"):
            threading.Timer(0.1, lambda: c.socket.shutdown(2)).start()
        return None

    with FakeMX(script) as mx, quick_node(one_route(mx, idle="10s"),
                                          client={"host_retry": "60s", "host_retry_max": "60s"}) as node:
        for i in range(3):
            send(node, f"u{i}@dest.test")
            mx.wait_messages(i + 1)
            wait_for("the close", lambda n=i: mx.connections[n].closed)
        assert not node.events("deferred") and len(mx.connections) == 3


def test_an_idle_connection_is_kept_for_its_time_and_ended_by_quit():
    with FakeMX() as mx, quick_node(one_route(mx, idle="1s")) as node:
        send(node)
        node.wait_queue_empty()
        send(node)
        mx.wait_messages(2)
        assert len(mx.connections) == 1
        wait_for("QUIT", lambda: verbs(mx.connections[0])[-1] == "QUIT")
        done = mx.connections[0].commands[-1][0] - mx.accepted[1].time
        assert done > 0.5


def test_no_idle_time_is_none():
    with FakeMX() as mx, quick_node(one_route(mx, idle="0")) as node:
        send(node)
        mx.wait_messages(1)
        wait_for("QUIT", lambda: verbs(mx.connections[0])[-1] == "QUIT")
        assert mx.connections[0].commands[-1][0] - mx.accepted[0].time < 0.5


def test_cli_10_a_refused_extra_connection_does_not_stop_those_that_work():
    """A host that takes two connections at a time and answers 421 to the third."""
    def script(c, verb, line):
        if verb == "CONNECT" and sum(1 for x in list(mx.connections) if x.closed is None) > 2:
            return Close("421 4.7.0 too many connections")
        return Delay(0.01) if verb in ("DOT", "LAST") else None

    with FakeMX(script) as mx, \
            quick_node(one_route(mx, connections=10), client={"host_retry": "60s",
                                                              "host_retry_max": "60s"}) as node:
        send_many(node, [f"u{i}@dest.test" for i in range(100)])
        mx.wait_messages(95, seconds=20)
        refused = sum(1 for c in mx.connections if not c.commands)
        assert refused <= 10, "one wave, not a storm"


# --- fair queueing ---

def fill(node, count, source, tag):
    send_many(node, [f"{tag}{i}@dest.test" for i in range(count)], source=source)


def test_one_tenants_crowd_does_not_delay_another():
    with FakeMX() as mx, quick_node(one_route(mx, connections=1), tenants=TWO_TENANTS,
                                    queue={"hold": True}) as node:
        fill(node, 5000, "127.0.0.71", "crowd")
        fill(node, 1, "127.0.0.72", "single")
        node.cli("release", "all")
        wait_for("the single one", lambda: any(m.recipients == ["single0@dest.test"]
                                               for m in list(mx.messages)))
        order = [m.recipients[0] for m in list(mx.messages)]
        assert order.index("single0@dest.test") <= 3, order[:10]


def test_ext_39_transactional_goes_before_bulk_and_bulk_still_moves():
    with FakeMX() as mx, quick_node(one_route(mx, connections=1), tenants=TWO_TENANTS,
                                    queue={"hold": True, "transactional_share": 8}) as node:
        fill(node, 500, "127.0.0.71", "bulk")
        fill(node, 200, "127.0.0.73", "code")
        node.cli("release", "all")
        mx.wait_messages(200)
        first = [m.recipients[0][:4] for m in mx.accepted][:200]
        assert 150 <= first.count("code") <= 170, first.count("code")
        assert first[0] == "code"


def test_a_held_tenant_opens_no_connections_and_blocks_nobody():
    with FakeMX() as mx, quick_node(one_route(mx, connections=1, idle="0"),
                                    tenants=TWO_TENANTS) as node:
        node.cli("hold", "tenant", "crowd")
        fill(node, 20, "127.0.0.71", "crowd")
        wait_reason(node, "held-tenant", 20)
        time.sleep(0.5)  # time to do it wrong
        assert mx.connections == []
        fill(node, 3, "127.0.0.72", "single")
        mx.wait_messages(3)
        wait_for("the others' end", lambda: len(rows(node)) == 20)
        node.cli("release", "tenant", "crowd")
        mx.wait_messages(23)


def test_tenant_weights():
    tenants = ("tenants:\n"
               "  crowd: {pool: main, from: [127.0.0.71/32], weight: 1}\n"
               "  single: {pool: main, from: [127.0.0.72/32], weight: 3}\n")
    with FakeMX() as mx, quick_node(one_route(mx, connections=1), tenants=tenants,
                                    queue={"hold": True}) as node:
        fill(node, 200, "127.0.0.71", "crowd")
        fill(node, 200, "127.0.0.72", "single")
        node.cli("release", "all")
        mx.wait_messages(120)
        first = [m.recipients[0] for m in mx.accepted][:120]
        assert 85 <= sum(r.startswith("single") for r in first) <= 95


def test_a_slow_site_does_not_delay_another():
    with FakeMX(lambda c, v, l: Delay(2) if v == "CONNECT" else None) as slow, FakeMX() as quick:
        routes = [("slow.test", slow.address), ("*", quick.address)]
        with quick_node(routes) as node:
            send_many(node, [f"u{i}@slow.test" for i in range(20)])
            start = time.monotonic()
            send_many(node, [f"u{i}@dest.test" for i in range(20)])
            quick.wait_messages(20)
            assert time.monotonic() - start < 1.5 or not slow.accepted
            slow.wait_messages(20)


def test_recipients_of_two_domains_are_two_transactions():
    """CLI-26 for a route; the same by MX is in test_dns_routing."""
    with FakeMX() as mx, quick_node(one_route(mx, connections=1)) as node:
        with Talker(node.address) as t:
            t.ehlo()
            t.mail(CONTENT, rcpts=("a@one.test", "b@two.test", "c@one.test"))
        mx.wait_messages(2)
        got = sorted(m.recipients for m in mx.accepted)
        assert got == [["a@one.test", "c@one.test"], ["b@two.test"]]
        assert len(mx.connections) == 1
