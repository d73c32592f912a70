#!/usr/bin/python3
"""The reason for this program, shown: two nodes, a router and a slow destination on hosts made of network
namespaces; mail comes in at both nodes, and a pool of 16 lanes moves from a to b and back while it is
delivered. Exit status 0 only if every message arrived exactly once, no connection was reset or cut, and the
cluster's ledger balances.

    bench/demo_move.py BIN_DIR [MESSAGES_PER_S]
"""
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LANES = 16
DELAY = "dot=300-5000"


def fail(text):
    print(f"demo-move: {text}", file=sys.stderr)
    sys.exit(1)


def say(text=""):
    print(text, flush=True)


def usable_or_fail():
    missing = [what for what, there in (
        ("root: the hosts of this demo are network namespaces; try: sudo make demo-move", os.geteuid() == 0),
        ("the command ip (package iproute2)", shutil.which("ip") is not None)) if not there]
    if missing:
        fail("needs " + ", and ".join(missing))
    from netlab import why_not
    reason = why_not()
    if reason:
        fail(reason)


def move(c, at, to):
    """As the operator does it, with the command's own live progress."""
    say(f"\n$ mochila pool move main --to {to}")
    # Two commands, so that the order can be repeated while transactions of the last move are still open.
    ident = c[at].order_when_free("pool", "move", "main", "--to", to)
    subprocess.run([f"{c.bin}/mochila", "--socket", c[at].socket_path, "move", "status", ident, "--follow"],
                   check=False)
    if c[at].wait_move(ident)["state"] != "done":
        fail("the pool was not moved")
    c.wait_settled()
    say(f"the addresses of all {LANES} lanes answer at {to}; {c.queued()} recipients are queued")


def verdict(c, load):
    promised = c.promised()
    wrong = c.judge()
    result = c.sink.finish()
    rows = (("accepted from the load", len(promised)), ("delivered", result["unique"]),
            ("lost", len(promised) - result["unique"]), ("duplicated", result["duplicated"]),
            ("connections at the destination", result["sessions"]),
            ("of them reset", result["connections_reset"]),
            ("cut within a transaction", result["cut_in_transaction"]),
            ("refused or lost at the door", sum(r["connections_lost"] + r["answered_4xx"] for r in load)))
    say()
    for name, value in rows:
        say(f"{name:32} {value:>8}")
    say()
    if wrong:
        fail("NOT GOOD: " + "; ".join(wrong))
    say("every message arrived exactly once; the destination saw nothing but other source ports")


def main():
    if not 2 <= len(sys.argv) <= 3:
        fail("usage: demo_move.py BIN_DIR [MESSAGES_PER_S]")
    os.environ["MOCHILA_BIN"] = os.path.abspath(sys.argv[1])
    sys.path.insert(0, os.path.join(ROOT, "tests", "cluster"))
    sys.dont_write_bytecode = True
    usable_or_fail()
    import mochila_cluster
    rate = int(sys.argv[2]) if len(sys.argv) == 3 else 500
    say("nodes a (10.97.0.11) and b (10.97.0.12) on one segment, 16 lanes 10.97.1.1-16 at home on a,\n"
        "a router, and behind it a destination that answers each message after 0.3 to 5 seconds")
    with mochila_cluster.Cluster(lanes=LANES, sink=("--delay", DELAY)) as c:
        c.bin = mochila_cluster.BIN
        say(f"{rate} messages a second come in at both nodes")
        load = c.load(rate=rate)
        time.sleep(6)
        move(c, "a", "b")
        time.sleep(3)
        move(c, "b", "a")
        time.sleep(2)
        results = load.stop()
        say("\nno new mail; the queues run empty")
        c.drained()
        say("\n$ mochila ledger --cluster")
        subprocess.run([f"{c.bin}/mochila", "--socket", c["a"].socket_path, "ledger", "--cluster"], check=False)
        verdict(c, results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except AssertionError as e:
        fail(str(e))
