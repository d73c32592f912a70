"""Moves and the cluster on the command line: the real command and api, on a pipe and on a terminal, with a
fake master that plays a move."""
import json
import re
import time

import pytest

from fake_master import Master, cli
from test_api import on_pty

LANES = 300


@pytest.fixture
def node(tmp_path):
    m = Master(tmp_path)
    try:
        assert m.start(), m.log()
        yield m
    finally:
        m.close()


class Play:
    """A move that takes its steps with time; every answer is like the master's."""

    def __init__(self, seconds, end="done", lanes=LANES, reason=""):
        self.began, self.seconds, self.end, self.lanes, self.reason = time.time(), seconds, end, lanes, reason

    def share(self):
        return min(1.0, (time.time() - self.began) / self.seconds)

    def move(self):
        share, over = self.share(), self.share() >= 1
        done = int(self.lanes * share) if self.end == "done" else 0
        rows = [{"lane": f"192.0.{i // 250}.{i % 250}", "state": "done" if i < done else "copying" if i < done + 8
                 else "waiting", "step": 11 if i < done else 3 if i < done + 8 else 1, "pause_us": 3000 if i < done else 0,
                 "messages_left": 5, "bytes_left": 4096, "tails": 0, "reason": self.reason if over else ""}
                for i in range(self.lanes)]
        return {"id": "a-17", "pool": "x", "from": "a", "to": "b", "state": self.end if over else "copying",
                "started": int(self.began), "ended": int(time.time()) if over else 0, "reason": self.reason if over else "",
                "lanes_total": self.lanes, "lanes_done": done, "messages_total": 5000,
                "messages_sent": int(5000 * share), "bytes_total": 5 << 20, "bytes_sent": int((5 << 20) * share),
                "rate_bytes_per_s": 1 << 20, "eta_s": 1, "tails": 2, "owed": 0, "in_doubt": 0,
                "pause_us": {"p50": 3000, "p99": 9000, "max": 12000} if done else {}, "lanes": rows}


def play(node, *args, **kw):
    p = Play(*args, **kw)
    node.answers["move"] = lambda a: [(None, 200, {"move": p.move(), "dry_run": False})]
    node.answers["moves"] = lambda a: [(None, 200, {"moves": [p.move()]})]
    return p


def test_followed_through_a_pipe(node):
    play(node, 2.2)
    code, out, err = cli("pool", "move", "x", "--to", "b", "--rate", "1M", socket_path=node.socket_path)
    assert (code, err) == (0, "")
    assert ("move", ["pool=x", "to=b", "rate=1048576"]) in node.queries
    lines = [x for x in out.split("\n") if re.match(r"\d\d:\d\d:\d\d  a-17  ", x)]
    assert 3 <= len(lines) <= 5, out  # one a second, and the last
    assert "  done  lanes 300/300" in lines[-1]
    assert "pause     p50 3.0ms, p99 9.0ms, max 12ms" in out and "in doubt  0" in out
    assert "\033" not in out


def test_json_is_a_line_a_second(node):
    play(node, 1.2, lanes=4)
    code, out, err = cli("lane", "move", "192.0.2.1", "--to", "b", "--json", socket_path=node.socket_path)
    frames = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and frames[-1]["moves"][0]["state"] == "done" and len(frames) >= 2


def test_redrawn_on_a_terminal(node):
    """Three hundred lanes on forty lines: each block is gone over by the next and none scrolls."""
    play(node, 1.5)
    code, out, left = on_pty(["--socket", node.socket_path, "pool", "move", "x", "--to", "b"], [])
    assert code == 0, out
    ups = [int(n) for n in re.findall(r"\033\[(\d+)A", out)]
    assert len(ups) >= 4 and all(4 <= n <= 18 for n in ups), ups
    blocks = re.split(r"\033\[\d+A\r", out)
    assert all(b.count("\n") <= 18 for b in blocks[:-1])
    assert "and " in blocks[1] and "more" in blocks[1] and "8 copying" in blocks[1]
    for line in re.sub(r"\033\[[0-9;]*[A-Za-z]", "", out).replace("\r", "").split("\n"):
        assert len(line) <= 80, line
    assert "messages  5,000" in blocks[-1]


def test_interrupt_leaves_the_move_alone(node):
    play(node, 60)
    code, out, left = on_pty(["--socket", node.socket_path, "pool", "move", "x", "--to", "b"], [(b"copied", b"\x03")])
    assert (code, left) == (1, []), out
    assert "mochila move status a-17 --follow" in out and "mochila move abort a-17" in out
    assert not [q for q in node.queries if q[0] == "move_abort"]


def test_a_refusal_says_what_to_do(node):
    play(node, 0.1, end="refused", reason="the lane is not configured there")
    code, out, err = cli("pool", "move", "x", "--to", "b", socket_path=node.socket_path)
    assert code == 1 and "300 lanes stay on a" in out and "what to do: all nodes have the same pools" in out
    node.answers["move"] = lambda a: [(None, 409, {"error": "lane 192.0.2.1 is in move a-3 already"})]
    node.answers["cluster"] = lambda a: [(None, 200, {"cluster": "c", "nodes": [{"node": "a"}, {"node": "b"}],
                                                      "lanes": [{"lane": "192.0.2.1", "pool": "x"}]})]
    code, out, err = cli("pool", "move", "x", "--to", "b", socket_path=node.socket_path)
    assert code == 1 and "in move a-3 already" in err and "what to do: wait for the other move" in err
    code, out, err = cli("pool", "move", "x", "--to", "bb", socket_path=node.socket_path)
    assert code == 1 and "there is no node bb\n  there are a, b\n" in err


def test_abort_and_unknown(node):
    p = Play(60)
    node.answers["move_abort"] = lambda a: [(None, 200, {"move": p.move(), "dry_run": False})]
    code, out, err = cli("move", "abort", "a-17", socket_path=node.socket_path)
    assert code == 0 and "move a-17 ends: 0 of 300 lanes are over" in out
    node.answers["moves"] = lambda a: [(None, 404, {"error": "there is no move a-18"})]
    code, out, err = cli("move", "status", "a-18", socket_path=node.socket_path)
    assert code == 4 and "there is no move a-18" in err


def test_mistyped_commands():
    for words, meant in ((("cluster", "stauts"), "cluster status"), (("pool", "mvoe", "x"), "pool move"),
                         (("nod", "drain", "a"), "node drain"), (("move", "abrot"), "move abort"),
                         (("statsu", "drain"), "status")):
        code, out, err = cli(*words)
        assert code == 2 and f"did you mean {meant}?" in err, err
    for words, hint in ((("pool", "move", "x"), "--to NODE"), (("lane", "move", "1.2.3", "--to", "b"), "not an IPv4"),
                        (("pool", "move", "x", "--to", "b", "--rate", "fast"), "--rate is bytes per second"),
                        (("pool", "move", "x", "--to", "b", "--parallel", "0"), "--parallel is a number"),
                        (("move", "status", "--follow"), "which move")):
        code, out, err = cli(*words)
        assert code == 2 and hint in err and "usage: mochila" in err, err


def test_cluster_watch(node):
    count = [0]

    def answer(_):
        count[0] += 1
        return [(None, 200, {"cluster": "prod", "node": "a", "nodes": [{"node": "a", "self": True, "up": True},
                             {"node": "b", "up": count[0] > 1, "since_s": 5}], "lanes": []})]
    node.answers["cluster"] = answer
    code, out, err = cli("cluster", "status", socket_path=node.socket_path)
    assert code == 0 and "cluster prod   seen from a" in out and "node b cannot be reached for 5s" in out
    code, out, left = on_pty(["--socket", node.socket_path, "cluster", "status", "--watch"], [(b"A\r", b"\x03")])
    assert (code, left) == (0, []), out
    assert count[0] >= 3
