"""What the tests of delivery share: putting mail in, and asking what became of it."""
from fake_mx import FakeMX
from mochila_node import Node, free_port, wait_for
from talk import Talker, queued_id

CONTENT = b"From: a@sender.test\r\nSubject: t\r\n\r\nhello\r\n"
# Everything that waits in minutes and hours waits in seconds here.
QUICK = {"retry_first": "1s", "retry_greylist": "1s", "retry_max": "2s",
         "retry_max_transactional": "2s", "retry_jitter_percent": 0}
# For what must still wait when the test looks.
SLOW = {"retry_first": "30s", "retry_greylist": "30s", "retry_max": "60s",
        "retry_max_transactional": "60s"}
FLIGHT = 50
QUICK_CLIENT = {"host_retry": "1s", "host_retry_max": "2s"}


def quick_node(routes=(), *, queue=None, client=None, **more):
    return Node(routes=routes, queue={**QUICK, **(queue or {})},
                client={**QUICK_CLIENT, **(client or {})}, **more)


def one_route(mx, **limits):
    """Everything to this exchanger, with these limits."""
    return [("*", mx.address, {"limits": limits} if limits else {})]


def send(node, *rcpts, sender="from@sender.test", content=CONTENT, source=None, params="",
         listener=0):
    """One message; its id."""
    with Talker(node.addresses[listener], source=source) as t:
        t.ehlo()
        return t.mail(content, sender=sender, rcpts=rcpts or ("to@dest.test",), params=params)


def send_many(node, addresses, *, sender="from@sender.test", content=CONTENT, source=None):
    """One message each, over one connection, in flights of BDAT (the content goes as it stands); their ids."""
    ids = []
    with Talker(node.address, source=source) as t:
        t.ehlo()
        for at in range(0, len(addresses), FLIGHT):
            flight = addresses[at:at + FLIGHT]
            t.send(b"".join(b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nBDAT %d LAST\r\n%s" %
                            (sender.encode(), a.encode(), len(content), content) for a in flight))
            for _ in flight:
                replies = [t.reply(to) for to in ("MAIL", "RCPT", "BDAT")]
                assert [r.code for r in replies] == [250] * 3, replies
                ids.append(queued_id(replies[2]))
    return ids


def reasons(node):
    """{reason: recipients} of what is queued."""
    return {row["key"]: row["queued"] + row["bounce_due"]
            for row in node.api("queue", by="reason")["rows"]}


def rows(node, **filters):
    return node.api("queue", by="message", **filters)["rows"]


def wait_state(node, state, count=1):
    """At least so many recipients in this state; their rows."""
    return wait_for(f"{count} recipients {state}",
                    lambda: (lambda r: len(r) >= count and r)(rows(node, state=state)))


def wait_reason(node, reason, count=1):
    return wait_for(f"{count} recipients with the reason {reason}",
                    lambda: reasons(node).get(reason, 0) >= count)


def one_event(node, what, **fields):
    """The only event of this kind."""
    found = node.wait_event(what, **fields)
    assert len(found) == 1, found
    return found[0]


def balanced(node):
    ledger = node.ledger()
    assert ledger["balance"] == 0, ledger
    return ledger


def delivered(node, count):
    """Exactly so many, recorded: the exchanger has a message before the node has its answer."""
    wait_for(f"{count} recorded as delivered", lambda: node.ledger()["delivered"] >= count)
    return balanced(node)["delivered"] == count


def verbs(connection):
    """The commands of one connection, without their arguments."""
    return [line.split(b" ")[0].upper().decode("latin-1") for line in connection.lines]


class Exchangers:
    """Several exchangers on one port of different loopback addresses, as MX hosts of one world."""

    def __init__(self, *addresses, scripts=None, **more):
        self.by_address = {}
        self.port = 0
        for address in addresses:
            script = (scripts or {}).get(address)
            mx = FakeMX(script, address=address, port=self.port, name=f"mx-{address}", **more)
            self.port = mx.port
            self.by_address[address] = mx

    def __getitem__(self, address):
        return self.by_address[address]

    @property
    def accepted(self):
        return [m for mx in self.by_address.values() for m in mx.accepted]

    @property
    def connections(self):
        return [c for mx in self.by_address.values() for c in mx.connections]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for mx in self.by_address.values():
            mx.close()


__all__ = ["CONTENT", "SLOW", "Exchangers", "FakeMX", "Node", "Talker", "balanced", "free_port", "one_event",
           "one_route", "quick_node", "reasons", "rows", "send", "send_many", "verbs", "wait_for",
           "wait_reason", "wait_state"]
