"""The real mochila-api and the real mochila command, with a fake master behind them."""
import http.client
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

import control_wire as wire
from fake_master import CLI, Master, cli

ID = "0004000000000000000000000a"[:26]


class Http(http.client.HTTPConnection):
    def __init__(self, path, timeout=15):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(m, method, url, body=None, headers=None):
    c = Http(m.socket_path)
    c.request(method, url, body, headers or {})
    r = c.getresponse()
    text = r.read().decode()
    c.close()
    return r.status, json.loads(text) if text.startswith("{") else text


@pytest.fixture
def node(tmp_path):
    m = Master(tmp_path)
    try:
        assert m.start(), m.log()
        yield m
    finally:
        m.close()


# --- the process -----------------------------------------------------------------------------

def test_ready_socket_and_end(tmp_path):
    m = Master(tmp_path)
    try:
        assert m.start()
        mode = os.stat(m.socket_path).st_mode & 0o777
        assert mode == 0o660
    finally:
        m.close()
    assert m.process.returncode == 0
    assert not os.path.exists(m.socket_path)


def test_terminated(tmp_path):
    m = Master(tmp_path)
    try:
        assert m.start()
        m.process.send_signal(signal.SIGINT)  # of a terminal's whole group: not for us to decide
        m.process.send_signal(signal.SIGHUP)
        assert ask(m, "GET", "/metrics")[0] == 200
        m.process.terminate()
        assert m.process.wait(5) == 0
        assert not os.path.exists(m.socket_path)
    finally:
        m.close()


def test_by_hand_it_explains_itself():
    r = subprocess.run([os.path.join(os.path.dirname(CLI), "mochila-api")], capture_output=True,
                       stdin=subprocess.DEVNULL)
    assert r.returncode == 2 and b"started by it" in r.stderr


def test_malformed_frame_ends_it(tmp_path):
    m = Master(tmp_path)
    try:
        assert m.start()
        wire.send(m.sock, b"\xff\xff\xff")
        assert m.process.wait(5) == 1
        assert "malformed" in m.log()
    finally:
        m.close()


def test_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = os.path.join(str(tmp_path), "api.sock")
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.close()  # a file nobody listens at
    m = Master(tmp_path)
    try:
        assert m.start()
        second = Master(tmp_path / "second")
        try:
            assert not second.start(socket_path=path)
            assert second.process.wait(5) == 1
            assert "another process answers" in second.log()
        finally:
            second.close()
        assert ask(m, "GET", "/metrics")[0] == 200
    finally:
        m.close()


def test_tcp_on_loopback_only(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    m = Master(tmp_path, extra=", listen: '127.0.0.1:%d'" % port)
    try:
        assert m.start(), m.log()
        for host, wanted in (("127.0.0.1:%d" % port, 200), ("localhost:%d" % port, 200),
                             ("[::1]:%d" % port, 200), ("evil.example:%d" % port, 403),
                             ("192.0.2.1", 403), ("", 403)):
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            c.request("GET", "/metrics", headers={"Host": host})
            assert c.getresponse().status == wanted, host
            c.close()
    finally:
        m.close()
    m = Master(tmp_path / "open", extra=", listen: '0.0.0.0:%d'" % port)
    try:
        assert not m.start()
        assert "loopback" in m.log()
        assert m.process.wait(5) == 1
    finally:
        m.close()


def test_reload_moves_the_socket_without_losing_the_request(tmp_path):
    m = Master(tmp_path)
    new = os.path.join(str(tmp_path), "new.sock")
    try:
        assert m.start(split=True)
        result = []
        t = threading.Thread(target=lambda: result.append(ask(m, "POST", "/v1/reload")))
        t.start()
        while not m.queries:
            time.sleep(0.01)
        assert m.start(socket_path=new)
        assert not os.path.exists(m.socket_path)
        wire.send(m.sock, wire.answer(1, b'{"text":"generation 2"}', True, 200))
        t.join(5)
        assert result == [(200, {"text": "generation 2"})]
        m.socket_path = new
        assert ask(m, "GET", "/metrics")[0] == 200
        # A configuration that cannot be served leaves the old one in force.
        assert not m.start(socket_path=new, extra=", listen: '192.0.2.1:80'") or True
        assert 3 not in m.ready
        assert ask(m, "GET", "/metrics")[0] == 200
    finally:
        m.close()


def test_end_of_the_master_answers_what_waits(tmp_path):
    m = Master(tmp_path)
    assert m.start()
    results = {}

    def run(verb, method):
        results[verb] = ask(m, method, "/v1/" + verb)

    threads = [threading.Thread(target=run, args=a) for a in (("stop", "POST"), ("status", "GET"))]
    for t in threads:
        t.start()
    while len(m.queries) < 2:
        time.sleep(0.01)
    m.close()
    for t in threads:
        t.join(5)
    assert results["stop"][0] == 200
    assert results["status"][0] == 503
    assert m.process.returncode == 0


# --- requests --------------------------------------------------------------------------------

def test_paths_methods_and_arguments(node):
    node.answers["status"] = lambda a: [(None, 200, {"node": "t"})]
    node.answers["retry"] = lambda a: [(0, 200, {"changed": 1}), (1, 200, {"changed": 2})]
    cases = [
        ("GET", "/v1/statsu", 404, "did you mean /v1/stat"),
        ("GET", "/nothing", 404, "GET / lists"),
        ("POST", "/v1/status", 405, "GET"),
        ("GET", "/v1/stop", 405, "POST"),
        ("PUT", "/metrics", 405, "GET"),
        ("GET", "/v1/queue?sit=x", 400, "did you mean site?"),
        ("GET", "/v1/queue?limit=0", 400, "1 to 10000"),
        ("GET", "/v1/queue?limit=x", 400, "1 to 10000"),
        ("GET", "/v1/queue?site=a&site=b", 400, "twice"),
        ("GET", "/v1/queue?site=", 400, "is empty"),
        ("GET", "/v1/queue?site=%1b%5b2J", 400, "control"),
        ("GET", "/v1/queue?site=%ff", 400, "UTF-8"),
        ("GET", "/v1/queue?UP=1", 400, "a-z"),
        ("GET", "/v1/status?x=1", 400, "takes no arguments"),
        ("GET", "/v1/why", 400, "needs the argument what"),
        ("GET", "/v1/trace?id=xyz", 400, "26 letters"),
        ("POST", "/v1/retry", 400, "all=1"),
        ("POST", "/v1/retry?all=0", 400, "all=1"),
        ("POST", "/v1/delete", 400, "every message"),
    ]
    for method, url, status, text in cases:
        got, body = ask(node, method, url)
        assert got == status, (url, got, body)
        assert text in body["error"], (url, body)
    assert node.queries == []
    assert ask(node, "GET", "/v1/status") == (200, {"node": "t"})
    assert ask(node, "POST", "/v1/retry?all=1") == (200, {"changed": 3})
    names = {v["path"] for v in ask(node, "GET", "/")[1]["verbs"]}
    assert {"/v1/queue", "/v1/trace", "/v1/stop"} <= names


def test_bodies(node):
    node.answers["hold"] = lambda a: [(None, 200, {"text": "held"})]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    js = {"Content-Type": "application/json; charset=utf-8"}

    def post(body, headers):
        return ask(node, "POST", "/v1/hold", body, headers)

    assert post("kind=site&value=a%20b%2Bc+d&why=", form)[0] == 200
    assert node.queries[-1] == ("hold", ["kind=site", "value=a b+c d", "why="])
    assert post(json.dumps({"kind": "site", "value": "gmäil", "why": 5}), js)[0] == 200
    assert node.queries[-1] == ("hold", ["kind=site", "value=gmäil", "why=5"])
    n = len(node.queries)
    for body, headers, status in (
            ("kind=%zz", form, 400), ("kind=%4", form, 400), ("{", js, 400), ("[1]", js, 400),
            ('{"kind":["site"]}', js, 400), ('{"kind":null}', js, 400),
            ('{"kind":"a","kind":"b"}', js, 400), ("x", {"Content-Type": "text/plain"}, 415),
            ("kind=" + "x" * 20000, form, 413), ("kind=" + "x" * 5000, form, 400),
            ('{"kind":"a\\u0000b"}', js, 400)):
        got, text = post(body, headers)
        assert got == status, (body[:40], got, text)
    assert len(node.queries) == n


def test_browsers_of_other_origins_are_refused(node):
    node.answers["stop"] = lambda a: [(None, 200, {})]
    assert ask(node, "POST", "/v1/stop", headers={"Origin": "http://evil.example"})[0] == 403
    assert ask(node, "POST", "/v1/stop", headers={"Origin": "null"})[0] == 403
    assert node.queries == []
    assert ask(node, "POST", "/v1/stop", headers={"Origin": "http://localhost"})[0] == 200


def test_idle_and_slow_connections_do_not_block(node):
    node.answers["status"] = lambda a: [(None, 200, {"node": "t"})]
    idle = []
    for _ in range(50):
        s = socket.socket(socket.AF_UNIX)
        s.connect(node.socket_path)
        s.send(b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nkind")
        idle.append(s)
    begin = time.time()
    assert ask(node, "GET", "/v1/status")[0] == 200
    assert time.time() - begin < 1
    for s in idle:
        s.close()


def test_many_at_once_each_gets_its_own(node):
    node.answers["why"] = lambda a: [(0, 200, {"rows": [{"lane": a["what"]}]}),
                                     (1, 200, {"rows": []})]
    out = {}

    def run(i):
        out[i] = ask(node, "GET", "/v1/why?what=%d" % i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(40):
        assert out[i] == (200, {"rows": [{"lane": str(i)}]})


# --- merging ---------------------------------------------------------------------------------

ROW = {"ready": 0, "waiting": 0, "held": 0, "in_flight": 0, "bounce_due": 0, "parked": 0}


def queue_answer(slot):
    rows = [dict(ROW, key="gmail.com", queued=10 + slot, oldest_s=100 * (slot + 1),
                 next_due_s=5 + slot, reasons={"rate": 3, "r%d" % slot: 1}),
            dict(ROW, key="only%d.example" % slot, queued=1, oldest_s=7, next_due_s=1, reasons={})]
    return (slot, 200, {"rows": rows})


def test_rows_are_merged_by_key(node):
    node.chunk = 100  # many pieces
    node.answers["queue"] = lambda a: [queue_answer(0), queue_answer(1)]
    status, body = ask(node, "GET", "/v1/queue?by=site&limit=2")
    assert status == 200 and "missing" not in body
    assert body["rows_cut"] == 1
    first = body["rows"][0]
    assert (first["key"], first["queued"]) == ("gmail.com", 21)
    assert first["oldest_s"] == 200 and first["next_due_s"] == 5
    assert first["reasons"] == {"rate": 6, "r0": 1, "r1": 1}
    assert node.queries[-1] == ("queue", ["by=site", "limit=2"])


def test_missing_workers_are_named(node):
    cases = [
        [queue_answer(0)],                                                 # said nothing
        [queue_answer(0), (1, 503, {"error": "worker 1 is not running"})], # the master speaks for it
        [queue_answer(0), (1, 200, b'{"rows":[')],                         # died in the middle
    ]
    for parts in cases:
        node.answers["queue"] = lambda a, p=parts: p
        status, body = ask(node, "GET", "/v1/queue")
        assert status == 200 and body["missing"] == [1], body
        code, out, err = cli("queue", socket_path=node.socket_path)
        assert code == 1 and "gmail.com" in out and "worker 1" in err
    node.answers["queue"] = lambda a: []
    assert ask(node, "GET", "/v1/queue")[0] == 503


def test_not_found_only_when_all_say_so(node):
    gone = (0, 404, {"error": "no such message"})
    node.answers["show"] = lambda a: [gone, (1, 404, {"error": "no such message"})]
    assert ask(node, "GET", "/v1/show?id=" + ID) == (404, {"error": "no such message"})
    code, out, err = cli("show", ID, socket_path=node.socket_path)
    assert (code, out) == (4, "") and "no such message" in err
    node.answers["show"] = lambda a: [gone, (1, 200, {"id": ID, "bytes": 5, "recipients": [
        {"index": 0, "address": "a@x", "state": "waiting", "attempts": 2, "due_in_s": 60,
         "last_reply": "451 4.7.1 \u001b[31mlater\u0007"}]})]
    status, body = ask(node, "GET", "/v1/show?id=" + ID)
    assert status == 200 and body["bytes"] == 5
    code, out, err = cli("show", ID, socket_path=node.socket_path)
    assert node.queries[-1] == ("show", ["id=" + ID, "headers=0"])
    assert code == 0 and "a@x" in out and "1m00s" in out
    assert "\x1b" not in out and "\x07" not in out and "?[31mlater?" in out


def test_no_answer_in_time_is_504(node):
    node.answers["queue"] = lambda a: None
    begin = time.time()
    status, body = ask(node, "GET", "/v1/queue")
    assert status == 504 and "in time" in body["error"] and body["missing"] == [0, 1]
    assert 9 < time.time() - begin < 13
    # A late answer harms nobody.
    wire.send(node.sock, wire.answer(1, b"{}", True, 200))
    node.answers["queue"] = lambda a: [queue_answer(0), queue_answer(1)]
    assert ask(node, "GET", "/v1/queue")[0] == 200


# --- counters --------------------------------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(r'^(%s)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$' % NAME)


def parse_metrics(text):
    """A strict reader of the text format: what promtool would complain about is an error here."""
    assert text.endswith("\n")
    families, samples, current = {}, {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, text_ = line[7:].split(" ", 1)
            assert name not in families and text_ and text_.endswith("."), line
            families[name] = {"help": text_}
            current = name
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and kind in ("counter", "gauge", "histogram"), line
            assert kind != "counter" or name.endswith("_total")
            assert kind == "counter" or not name.endswith("_total")
            families[name]["type"] = kind
        else:
            m = SAMPLE.match(line)
            assert m, line
            name, labels, value = m.groups()
            base = name
            if families[current]["type"] == "histogram":
                base = re.sub("_(bucket|sum|count)$", "", name)
            assert base == current, "samples of %s stand apart" % name
            key = (name, labels or "")
            assert key not in samples, "twice: %s" % line
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
            assert len(dict(pairs)) == len(pairs)
            samples[key] = float(value)
    for name, family in families.items():
        if family["type"] == "histogram":
            check_histogram(name, samples)
    return families, samples


def check_histogram(name, samples):
    series = {}
    for (n, labels), value in samples.items():
        if n == name + "_bucket":
            d = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            series.setdefault(d["worker"], []).append((float(d["le"].replace("+Inf", "inf")), value))
    for worker, buckets in series.items():
        assert buckets == sorted(buckets), "buckets are not cumulative"
        assert buckets[-1][0] == float("inf")
        assert samples[(name + "_count", 'worker="%s"' % worker)] == buckets[-1][1]
        assert (name + "_sum", 'worker="%s"' % worker) in samples


def test_metrics(node):
    node.pages[0].set(accepted_messages=7, delivered=5, queued=2, heartbeat_ns=1)
    node.pages[1].set(accepted_messages=70)
    for i, n in ((0, 1), (20, 5), (21, 2), (63, 1)):
        node.pages[0].bucket(i, n)
    node.pages[0].lane(0, 1, delivered=5, queued=2)
    node.pages[1].lane(3, 9, deferred=4)
    status, text = ask(node, "GET", "/metrics")
    assert status == 200
    families, samples = parse_metrics(text)
    for name in node.pages[0].counters:
        assert families["mochila_%s_total" % name]["type"] == "counter"
        assert families["mochila_%s_total" % name]["help"] != name, "no help for " + name
    for name in node.pages[0].gauges:
        assert families["mochila_" + name]["type"] == "gauge"
        assert families["mochila_" + name]["help"] != name
    assert samples[("mochila_accepted_messages_total", 'worker="0"')] == 7
    assert samples[("mochila_accepted_messages_total", 'worker="1"')] == 70
    assert samples[("mochila_lane_delivered_total", 'worker="0",lane="192.0.2.10"')] == 5
    assert samples[("mochila_lane_deferred_total", 'worker="1",lane="9"')] == 4
    latency = "mochila_accept_latency_seconds"
    assert samples[(latency + "_bucket", 'worker="0",le="0.001024"')] == 6
    assert samples[(latency + "_bucket", 'worker="0",le="0.002048"')] == 8
    assert samples[(latency + "_count", 'worker="0"')] == 9
    assert any(n == "mochila_worker_heartbeat_age_seconds" for n, _ in samples)


def test_the_strict_reader_is_strict():
    good = "# HELP a A.\n# TYPE a gauge\na{w=\"0\"} 1\n"
    parse_metrics(good)
    for bad in (good + good, good + "b 1\n", good.replace("gauge", "counter"), good[:-1],
                good + 'a{w="0"} 2\n', good.replace('"0"', "0"), good.replace(" 1", "  1")):
        with pytest.raises((AssertionError, KeyError)):
            parse_metrics(bad)


def test_stats(node):
    node.pages[0].set(accepted_messages=7, pid=123)
    node.pages[1].set(accepted_messages=3)
    node.pages[1].lane(0, 2, queued=8)
    status, body = ask(node, "GET", "/v1/stats")
    assert status == 200 and body["node"] == "t"
    assert body["total"]["accepted_messages"] == 10
    assert body["workers"][0]["pid"] == 123
    assert body["workers"][1]["values"]["accepted_messages"] == 3
    assert body["lanes"] == [dict(body["lanes"][0], lane="192.0.2.11", number=2, worker=1, queued=8)]


# --- event files -----------------------------------------------------------------------------

def event(t, message_id=ID, **more):
    return json.dumps(dict({"t": t, "event": "deferred", "id": message_id, "rcpt": "a@x.example",
                            "index": 0, "lane": "192.0.2.10"}, **more)) + "\n"


def test_trace(node):
    other = "0" * 25 + "1"
    noise = "".join(event(i, other, reply="mentions " + ID) for i in range(30000))  # > 4 MiB
    with open(node.log_dir + "/events-0.jsonl", "w") as f:
        f.write(event(100.001, event="accepted") + noise + event(103) + noise + event(105))
    with open(node.log_dir + "/events-1.jsonl", "w") as f:
        f.write(event(104, event="delivered", reply="250 ok") + '{"t":9,"id":"' + ID)  # torn line
    with open(node.log_dir + "/events-1.jsonl.1", "w") as f:
        f.write(event(99, event="attempt"))
    with open(node.log_dir + "/events-1.jsonl.2.gz", "w") as f:
        f.write(event(1))
    status, body = ask(node, "GET", "/v1/trace?id=" + ID.upper())
    assert status == 200 and body["cut"] is False and body["files"] == 3
    assert [e["t"] for e in body["events"]] == [99, 100.001, 103, 104, 105]
    assert body["scanned_bytes"] > 8 << 20
    code, out, err = cli("trace", ID, socket_path=node.socket_path)
    assert code == 0 and len(out.splitlines()) == 5 and '250 ok' in out
    status, body = ask(node, "GET", "/v1/trace?limit=2&id=" + ID)
    assert body["cut"] is True and len(body["events"]) == 2
    status, body = ask(node, "GET", "/v1/trace?id=" + "0" * 25 + "7")
    assert status == 404 and "3 event files" in body["error"]
    code, out, err = cli("trace", "0" * 25 + "7", socket_path=node.socket_path)
    assert code == 4 and out == ""


def test_trace_is_bounded_and_lets_others_through(node):
    node.answers["status"] = lambda a: [(None, 200, {"node": "t"})]
    line = event(1, "0" * 26).encode()
    with open(node.log_dir + "/events-0.jsonl", "wb") as f:
        f.write(event(1).encode())            # too old to be found
        f.write(line * ((300 << 20) // len(line)))
        f.write(event(2).encode())
    out = {}
    t = threading.Thread(target=lambda: out.update(trace=ask(node, "GET", "/v1/trace?id=" + ID)))
    t.start()
    begin = time.time()
    assert ask(node, "GET", "/v1/status")[0] == 200
    quick = time.time() - begin
    t.join(15)
    status, body = out["trace"]
    os.unlink(node.log_dir + "/events-0.jsonl")
    assert status == 200 and body["cut"] is True
    assert [e["t"] for e in body["events"]] == [2]
    assert body["scanned_bytes"] <= (256 << 20) + (8 << 20)
    assert quick < 1


def test_events_and_following(node):
    path = node.log_dir + "/events-0.jsonl"
    with open(path, "w") as f:
        f.write(event(2) + event(1, event="accepted"))
    status, body = ask(node, "GET", "/v1/events")
    assert [e["t"] for e in body["rows"]] == [1, 2]
    cursor = body["cursor"]
    with open(path, "a") as f:
        f.write(event(3) + event(4)[:30])  # a line that is still being written
    status, body = ask(node, "GET", "/v1/events?cursor=" + cursor)
    assert [e["t"] for e in body["rows"]] == [3]
    with open(path, "a") as f:
        f.write(event(4)[30:])
    os.rename(path, path + ".1")           # rotation between two calls loses nothing
    with open(path, "w") as f:
        f.write(event(5))
    status, body = ask(node, "GET", "/v1/events?cursor=" + body["cursor"])
    assert [e["t"] for e in body["rows"]] == [4, 5]
    assert ask(node, "GET", "/v1/events?event=accepted")[1]["rows"][0]["t"] == 1
    assert len(ask(node, "GET", "/v1/events?limit=2")[1]["rows"]) == 2
    p = subprocess.Popen([CLI, "--socket", node.socket_path, "events", "-f", "--json"],
                         stdout=subprocess.PIPE)
    try:
        assert [json.loads(p.stdout.readline())["t"] for _ in range(5)] == [1, 2, 3, 4, 5]
        with open(path, "a") as f:
            f.write(event(6))
        assert json.loads(p.stdout.readline())["t"] == 6
    finally:
        p.kill()
        p.wait()


# --- the command -----------------------------------------------------------------------------

def test_usage_errors_teach(node):
    cases = [
        ((), "usage: mochila"),
        (("statsu",), "did you mean status?"),
        (("xyzzy",), "mochila help"),
        (("queue", "--sit", "x"), "did you mean --site?"),
        (("queue", "--site"), "needs a value"),
        (("queue", "--site=a", "--site=b"), "twice"),
        (("status", "--json=1"), "takes no value"),
        (("status", "extra"), "one word too many"),
        (("why",), "usage: mochila why"),
        (("show",), "usage: mochila show ID"),
        (("hold", "sites", "gmail.com"), "did you mean site?"),
        (("hold", "site"), "which site?"),
        (("hold", "all", "x"), "takes no value"),
        (("retry",), "give an id".capitalize()),
        (("retry", "xyz"), "neither a message id"),
        (("delete", "all", "--site", "x"), "not both"),
        (("delete",), "usage: mochila delete"),
        (("delete", "all", "--yes", "--preview"), "either"),
        (("top", "--by", "cheese"), "lane, site or tenant"),
        (("top", "--batch", "0"), "from 1 to"),
        (("help", "nothing"), "no command"),
        (("-x",), "unknown option -x"),
        (("status", "-q"), "unknown option -q"),
        (("--soket", "x", "status"), "did you mean --socket?"),
    ]
    for args, text in cases:
        code, out, err = cli(*args, socket_path=None)
        assert code == 2, (args, code, out, err)
        assert text in err, (args, err)
        assert out == "", args
    assert node.queries == []


def test_not_running(tmp_path):
    path = str(tmp_path / "none.sock")
    for kw in ({"socket_path": path}, {"env": {"MOCHILA_SOCKET": path}}):
        code, out, err = cli("status", **kw)
        assert code == 3
        assert err == ("mochila: no mochila node answers at %s: is it running? (mochilad -f ...)\n"
                       % path)
    assert cli("top", "--once", socket_path=path)[0] == 3
    # Proxies of the environment are none of our business.
    assert cli("status", socket_path=path, env={"http_proxy": "http://127.0.0.1:9"})[0] == 3


def test_help_and_version():
    code, listing, err = cli("--help")
    assert code == 0
    names = re.findall(r"^  (\w+(?: \w+)?)  ", listing, re.M)
    assert len(names) > 20
    with open(os.path.join(wire.ROOT, "docs/man/mochila.1")) as f:
        manual = f.read()
    for name in names:
        code, out, err = cli("help", *name.split())
        assert code == 0 and "usage: mochila " + name in out
        assert cli(*name.split(), "--help")[1] == out
        assert re.search(r"\.It Ic %s\b" % name, manual), "%s is not in the manual page" % name
        for option in re.findall(r"--([a-z]+)", out):
            assert "Fl -" + option in manual, "--%s is not in the manual page" % option
    assert cli("--version")[1].startswith("mochila ")


def test_check_and_show_config(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("node: t\nhostname: t.example\n"
                    "pools: {main: {lanes: [{address: 127.0.0.1, ehlo: t.example}]}}\n"
                    "listen: [{address: 127.0.0.1, port: 2525}]\n")
    bad.write_text("node: t\nhostnam: t.example\nqueue: {lifetime: cheese}\n")
    code, out, err = cli("check", str(good))
    assert (code, err) == (0, "") and "lanes 1" in out
    assert json.loads(cli("check", "--json", "-f", str(good))[1])["lanes"] == 1
    code, out, err = cli("check", str(bad))
    assert (code, out) == (78, "")
    assert "bad.yaml:2: " in err and "hostname" in err and "bad.yaml:3: " in err
    assert cli("check", str(tmp_path / "none.yaml"))[0] == 78
    code, out, err = cli("show", "config", str(good))
    assert code == 0 and "hostname: t.example" in out and "# preset" in out
    assert cli("show", "config", str(bad))[0] == 78
    code, out, err = cli("show", "keys")
    assert code == 0 and "hostname" in out


def test_socket_from_the_configuration(node, tmp_path):
    node.answers["version"] = lambda a: [(None, 200, {"version": "x"})]
    node.answers["holds"] = lambda a: [(None, 200, {"holds": []})]
    file = tmp_path / "m.yaml"
    file.write_text(node.config())
    assert cli("-f", str(file), "holds")[:2] == (0, "nothing is on hold\n")
    file.write_text("nonsense: 1\n")
    assert cli("-f", str(file), "holds")[0] == 78


STATUS = {"node": "t", "version": "0.1.0", "generation": 3, "uptime_s": 93784, "state": "running",
          "children": [{"name": "worker", "slot": 0, "state": "ready", "pid": 4711, "restarts": 2,
                        "uptime_s": 65, "core": 1, "last_exit": "signal 9"}],
          "lanes": [{"lane": "192.0.2.10", "worker": 0}],
          "holds": [{"kind": "site", "value": "gmail.com", "since": 1795000000, "why": "\u001b]0;x"}],
          "config": "/etc/m.yaml", "warnings": ["page cache"]}


def test_status_and_json(node):
    node.answers["status"] = lambda a: [(None, 200, STATUS)]
    code, out, err = cli("status", socket_path=node.socket_path)
    assert (code, err) == (0, "")
    assert "1d02h" in out and "4711" in out and "signal 9" in out and "warning: page cache" in out
    assert "\x1b" not in out and "gmail.com" in out
    code, out, err = cli("--json", "status", socket_path=node.socket_path)
    assert json.loads(out) == STATUS


def test_ledger(node):
    even = {"accepted": 1000, "delivered": 900, "bounced": 40, "expired": 1, "deleted": 2,
            "handed_over": 3, "taken_over": 0, "queued": 54, "bounce_due": 5, "balance": 0}
    zero = {k: 0 for k in even}
    node.answers["ledger"] = lambda a: [(0, 200, even), (1, 200, even)]
    code, out, err = cli("ledger", socket_path=node.socket_path)
    assert code == 0
    assert out.splitlines()[0] == ("accepted 2,000 = delivered 1,800 + bounced 80 + expired 2 + "
                                   "deleted 4 + queued 108 + handed over 6")
    assert "balanced" in out and "NOT" not in out
    for odd in (dict(even, delivered=899), dict(even, balance=1), dict(even, queued=55)):
        node.answers["ledger"] = lambda a, o=odd: [(0, 200, o), (1, 200, zero)]
        code, out, err = cli("ledger", socket_path=node.socket_path)
        assert code == 1 and "NOT balanced" in out, odd
    node.answers["ledger"] = lambda a: [(0, 200, even)]
    assert cli("ledger", socket_path=node.socket_path)[0] == 1  # a worker is missing


def test_hold_release_retry(node):
    held = {"changed": 1, "holds": [{"kind": "site", "value": "gmail.com", "since": 1795000000,
                                     "why": "too many & more"}]}
    node.answers["hold"] = lambda a: [(None, 200, held)]
    node.answers["release"] = lambda a: [(None, 200, {"changed": 1, "holds": []})]
    node.answers["retry"] = lambda a: [(0, 200, {"changed": 1200}), (1, 200, {"changed": 34})]
    s = node.socket_path
    code, out, err = cli("hold", "site", "gmail.com", "--why", "too many & more", socket_path=s)
    assert code == 0 and "gmail.com" in out and "too many & more" in out
    assert node.queries[-1] == ("hold", ["kind=site", "value=gmail.com", "why=too many & more"])
    assert cli("release", "all", socket_path=s)[:2] == (0, "nothing is on hold\n")
    assert node.queries[-1] == ("release", ["kind=all"])
    assert cli("retry", "--site", "gmail.com", socket_path=s)[1] == "1,234 recipients will be tried now\n"
    assert node.queries[-1] == ("retry", ["site=gmail.com"])
    assert cli("retry", "now", socket_path=s)[0] == 0
    assert node.queries[-1] == ("retry", ["all=1"])
    assert cli("retry", "now", "--lane", "192.0.2.1", socket_path=s)[0] == 0
    assert node.queries[-1] == ("retry", ["lane=192.0.2.1"])
    node.answers["hold"] = lambda a: [(None, 400, {"error": "no lane 192.0.2.99"})]
    code, out, err = cli("hold", "lane", "192.0.2.99", socket_path=s)
    assert (code, out, err) == (1, "", "mochila: no lane 192.0.2.99\n")


def test_lifecycle_answers(node):
    s = node.socket_path
    node.answers["drain"] = lambda a: [(None, 200, {"seconds": 90, "workers": 2})]
    node.answers["stop"] = lambda a: [(None, 200, {"stopping": True, "seconds": 5})]
    node.answers["reload"] = lambda a: [(None, 400, {"error": "a.yaml:1: x\na.yaml:2: y\x1b\n"})]
    node.answers["audit"] = lambda a: [(None, 200, {"rows": [
        {"time": 1795000000, "who": "api", "what": "hold kind=all", "result": "done"}]})]
    code, out, err = cli("drain", "--seconds", "90", socket_path=s)
    assert code == 0 and "1m30s" in out and node.queries[-1] == ("drain", ["seconds=90"])
    assert "5s to finish, then the node ends" in cli("stop", socket_path=s)[1]
    code, out, err = cli("reload", socket_path=s)
    assert (code, out, err) == (1, "", "mochila: a.yaml:1: x\n  a.yaml:2: y?\n")
    out = cli("audit", socket_path=s)[1]
    assert "hold kind=all" in out and "api" in out


def test_sites_lanes_why(node):
    s = node.socket_path
    flow = {"key": "192.0.2.10 > mx.gmail", "lane": "192.0.2.10", "site": "mx.gmail", "reason": "rate",
            "text": "the rate is reached", "until_s": 61, "queued": 5, "in_flight": 1,
            "connections": 2, "limits": {"connections": 20}, "last_reply": "421 later"}
    wait = {"domain": "gmail.com", "reason": "dns-wait", "text": "looking up", "queued": 3,
            "last_reply": "", "until_s": 7}
    lane = {"key": "192.0.2.10", "number": 1, "queued": 8, "held": False, "gone": False, "epoch": 4,
            "position": 1234, "ehlo": "out.example"}
    node.answers["sites"] = lambda a: [(0, 200, {"rows": [flow]}), (1, 200, {"rows": []})]
    node.answers["lanes"] = lambda a: [(0, 200, {"rows": [lane]}), (1, 200, {"rows": []})]
    node.answers["why"] = lambda a: [(0, 200, {"rows": [flow, wait]}), (1, 200, {"rows": [wait]})]
    out = cli("sites", socket_path=s)[1]
    assert "mx.gmail" in out and "1m01s" in out and "421 later" in out
    out = cli("lanes", socket_path=s)[1]
    assert "out.example" in out and "1234" in out and "HELD" not in out
    out = cli("why", "gmail.com", socket_path=s)[1]
    assert out.count("gmail.com\n") == 1, "a domain's rows of two workers are one"
    assert "192.0.2.10 -> mx.gmail" in out and re.search(r"queued +6\n", out)
    assert "connections 20" in out and "goes on in  1m01s" in out
    node.answers["why"] = lambda a: [(0, 200, {"rows": []}), (1, 200, {"rows": []})]
    assert cli("why", "gmail.com", socket_path=s)[0] == 4


def delete_answer(args):
    if args.get("preview") == "1":
        row = {"id": ID, "index": 0, "rcpt": "a@x.example", "sender": "", "lane": "192.0.2.10",
               "state": "waiting", "reason": "rate", "attempts": 1, "age_s": 90, "bytes": 2048}
        return [(0, 200, {"matched": 3, "sample": [row]}), (1, 200, {"matched": 0, "sample": []})]
    return [(0, 200, {"deleted": 3}), (1, 200, {"deleted": 0})]


def on_pty(args, keys, env=None, seconds=10):
    """(status, output) of the command on a terminal; keys: [(wait for this text, then type)]."""
    pid, fd = pty.fork()
    if pid == 0:
        time.sleep(0.1)  # until the parent has set the size
        os.environ.update({"TERM": "xterm"})
        os.environ.update(env or {})
        os.execv(CLI, [CLI] + list(args))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    out, end, keys = b"", time.time() + seconds, list(keys)
    while time.time() < end:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        out += piece
        if keys and keys[0][0] in out:
            os.write(fd, keys.pop(0)[1])
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode(), keys


def test_delete_asks(node):
    node.answers["delete"] = delete_answer
    s = ["--socket", node.socket_path]
    deleted = ("delete", ["site=x.example"])
    code, out, err = cli("delete", "--site", "x.example", socket_path=node.socket_path)
    assert code == 2 and "a@x.example" in out and "3 in all" in out and "--yes" in err
    assert deleted not in node.queries
    for reply, status in ((b"n\n", 1), (b"\n", 1), (b"yy\n", 1), (b"y\n", 0)):
        code, out, left = on_pty(s + ["delete", "--site", "x.example"], [(b"[y/N]", reply)])
        assert (code, left) == (status, []), out
        assert (deleted in node.queries) == (status == 0), reply
    node.queries.clear()
    code, out, err = cli("delete", "--site", "x.example", "--yes", socket_path=node.socket_path)
    assert (code, out) == (0, "3 recipients deleted\n")
    assert node.queries == [deleted]
    node.queries.clear()
    assert cli("delete", "--site", "x.example", "--preview", socket_path=node.socket_path)[0] == 0
    assert node.queries == [("delete", ["site=x.example", "preview=1"])]
    node.answers["delete"] = lambda a: [(0, 200, {"matched": 0, "sample": []}),
                                        (1, 200, {"matched": 0, "sample": []})]
    assert cli("delete", "--site", "x.example", socket_path=node.socket_path)[0] == 4


def top_node(node):
    node.answers["queue"] = lambda a: [queue_answer(0), queue_answer(1)]
    node.pages[0].set(accepted_recipients=1000, delivered=10, queued=5)
    node.pages[0].lane(0, 1, delivered=10, queued=5)


def test_top_plain(node):
    top_node(node)
    bump = threading.Timer(0.5, lambda: node.pages[0].set(accepted_recipients=3000))
    bump.start()
    code, out, err = cli("top", "--once", socket_path=node.socket_path)
    assert (code, err) == (0, "") and "\x1b" not in out
    rate = int(re.search(r"accept/s ([\d,]+)", out).group(1).replace(",", ""))
    assert 1500 < rate < 2100  # 2000 within a second and a little
    assert "192.0.2.10" in out and "gmail.com" in out and "rate 6" in out
    code, out, err = cli("top", "--batch", "2", "--by", "tenant", socket_path=node.socket_path)
    assert out.count("mochila top") == 2 and "TENANT" in out
    assert ("queue", ["by=tenant", "limit=50"]) in node.queries
    stats = cli("top", "--once", "--json", socket_path=node.socket_path)[1]
    assert json.loads(stats)["total"]["delivered"] == 10


def test_top_live(node):
    top_node(node)
    args = ["--socket", node.socket_path, "top"]
    code, out, left = on_pty(args, [(b"SITE", b"t"), (b"TENANT", b"l"), (b"TENANT", b"q")],
                             env={"NO_COLOR": "1"})
    assert (code, left) == (0, []), out
    assert "\x1b[?1049h" in out and out.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "\x1b[1m" not in out
    code, out, left = on_pty(args, [(b"SITE", b"\x03")])
    assert code == 0 and out.rstrip().endswith("\x1b[?1049l"), "the terminal was not given back"
    assert "\x1b[1m" in out


def test_top_live_survives_a_restart_of_the_node(tmp_path):
    m = Master(tmp_path)
    assert m.start()
    top_node(m)
    killer = threading.Timer(1.5, m.close)
    killer.start()
    code, out, left = on_pty(["--socket", m.socket_path, "top"],
                             [(b"no mochila node answers", b"q")])
    killer.join()
    assert (code, left) == (0, [])


def test_tables_fit_the_terminal(node):
    node.answers["queue"] = lambda a: [(0, 200, {"rows": [dict(
        ROW, key="x" * 300 + ".example", queued=1, oldest_s=1, reasons={"rate": 1})]}), (1, 200, {})]
    code, out, left = on_pty(["--socket", node.socket_path, "queue"], [])
    lines = [re.sub("\x1b\\[\\d*m", "", line) for line in out.splitlines()]
    assert code == 0 and max(len(line) for line in lines) <= 80 and "…" in out
    code, out, err = cli("queue", socket_path=node.socket_path)
    assert "x" * 300 in out  # not on a terminal: nothing is cut
