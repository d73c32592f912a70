"""DNS-11: a domain that flips to NXDOMAIN. Alone in its file, since an answer is kept for 30 s at least."""
import time

from delivery import Exchangers, balanced, send
from fake_dns import FakeDNS, Ttl
from test_dns_routing import ONE, hosts, mx, world


def test_dns_11_a_domain_that_took_mail_lately_may_be_gone_for_a_while():
    """The answer's time to live is over (30 s at least): then it is NXDOMAIN once, and back later."""
    answers = {0: Ttl(1, mx(1)), 1: "NXDOMAIN"}
    table = {**hosts(ONE), ("dest.test", "MX"): lambda n: answers.get(n, mx(1))}
    with FakeDNS(table) as server, Exchangers(ONE) as m:
        with world(server, m.port, queue={"retry_first": "8s", "retry_max": "8s",
                                          "retry_max_transactional": "8s"}) as node:
            send(node)
            m[ONE].wait_messages(1)
            end = time.monotonic() + 45
            while len(server.asked("dest.test", "MX")) < 2 and time.monotonic() < end:
                send(node)
                time.sleep(2)
            event = node.wait_event("deferred")[0]
            assert event["reason"] == "dns-nxdomain" and event["status"] == "4.1.2"
            node.wait_queue_empty()
            assert balanced(node)["bounced"] == 0
