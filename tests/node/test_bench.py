"""The load generator against its own sink: what was acknowledged is what the sink has taken.

Run with the directory of the build in MOCHILA_BIN (build/debug otherwise).
"""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MOCHILA_BIN", ROOT / "build" / "debug"))
BENCH = str(BUILD / "mochila-bench")


def free_port(family=socket.AF_INET, address="127.0.0.1"):
    with socket.socket(family) as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def wait_for_port(port, family=socket.AF_INET, address="127.0.0.1"):
    for _ in range(500):
        with socket.socket(family) as s:
            if s.connect_ex((address, port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError("nobody listens")


class Run:
    """One source against one sink; results and records as they were written."""

    def __init__(self, tmp_path, sink=(), source=()):
        port = free_port()
        sent, got = tmp_path / "sent", tmp_path / "got"
        sink_json, source_json = tmp_path / "sink.json", tmp_path / "source.json"
        receiver = subprocess.Popen(
            [BENCH, "sink", "--listen", f"127.0.0.1:{port}", "--record", got, "--json", sink_json,
             "--against", sent, "--seed", "42", *sink], stderr=subprocess.DEVNULL)
        try:
            wait_for_port(port)
            sender = subprocess.run(
                [BENCH, "source", "--to", f"127.0.0.1:{port}", "--record", sent, "--quiet",
                 "--json", source_json, "--connections", "20", *source],
                timeout=60, stderr=subprocess.DEVNULL, check=False)
        finally:
            receiver.send_signal(signal.SIGTERM)
            self.sink_status = receiver.wait(20)
        self.source_status = sender.returncode
        self.sink = json.loads(sink_json.read_text())
        self.source = json.loads(source_json.read_text())
        self.acknowledged = {(w[0], r) for w in map(str.split, sent.open()) for r in w[1:]}
        self.taken = [tuple(w[:2]) for w in map(str.split, got.open())]

    def check_books(self):
        """Both ends, counted here and by the programs, agree."""
        assert self.source_status == 0
        assert self.sink_status == 0
        assert self.acknowledged == set(self.taken)
        assert len(self.taken) == len(set(self.taken)) == self.sink["unique"]
        assert self.sink["lost"] == 0 and self.sink["duplicated"] == 0
        assert self.sink["unidentified"] == 0
        assert self.source["recipients_accepted"] == len(self.acknowledged)
        assert self.source["protocol_errors"] == 0


MODES = [["--mode", "bare"], ["--mode", "pipelined"], ["--mode", "chunking"],
         ["--mode", "chunking", "--window", "16"]]


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_all_arrives(tmp_path, mode):
    run = Run(tmp_path, source=["--count", "1000", "--rcpts", "3", *mode])
    run.check_books()
    assert len(run.acknowledged) == 3000
    assert run.source["latency"]["count"] == run.sink["latency"]["count"] == 1000


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_refusals_are_counted_on_both_sides(tmp_path, mode):
    run = Run(tmp_path, ["--fail", "0.2,mail=0.1,data=0.1,dot=0.1"],
              ["--count", "1000", "--rcpts", "3", *mode])
    run.check_books()
    refused = run.source["answered_5xx"]
    assert 150 < refused < 400
    assert run.source["accepted"] + refused == 1000
    assert run.source["given_up"] == refused


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_retry_brings_all_in(tmp_path, mode):
    run = Run(tmp_path, ["--tempfail", "0.2,mail=0.1,data=0.1,dot=0.1"],
              ["--count", "600", "--rcpts", "3", "--retry", "--retry-delay", "10", *mode])
    run.check_books()
    assert len(run.acknowledged) == 1800
    assert run.source["retries"] > 100


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_a_final_answer_is_not_asked_again(tmp_path, mode):
    run = Run(tmp_path, ["--fail", "rcpt=0.2", "--tempfail", "dot=0.3"],
              ["--count", "500", "--rcpts", "4", "--retry", "--retry-delay", "10", *mode])
    run.check_books()
    assert run.source["recipients_accepted"] + run.source["recipients_5xx"] == 2000
    assert run.source["recipients_5xx"] > 300


def test_greylisting_needs_a_second_attempt(tmp_path):
    run = Run(tmp_path, ["--greylist", "300ms"],
              ["--count", "50", "--retry", "--retry-delay", "100"])
    run.check_books()
    assert len(run.acknowledged) == 50
    assert run.source["recipients_4xx"] >= 50


def test_one_recipient_at_a_time(tmp_path):
    run = Run(tmp_path, ["--accept-one-of", "3"],
              ["--count", "50", "--rcpts", "6", "--retry", "--retry-delay", "10"])
    run.check_books()
    assert len(run.acknowledged) == 300


def test_close_after_dot_is_in_doubt_and_sent_again(tmp_path):
    run = Run(tmp_path, ["--close-after-dot", "0.1"],
              ["--count", "500", "--retry", "--retry-delay", "10"])
    run.check_books()
    assert run.source["in_doubt"] == run.sink["closed_after_dot"] > 10
    assert len(run.acknowledged) == 500


def test_close_after_dot_without_retry_is_given_up(tmp_path):
    run = Run(tmp_path, ["--close-after-dot", "0.1"], ["--count", "500"])
    run.check_books()
    assert run.source["given_up"] == run.sink["closed_after_dot"] > 10
    assert len(run.acknowledged) + run.source["given_up"] == 500


def test_early_421_leads_to_a_new_connection(tmp_path):
    run = Run(tmp_path, ["--close-after", "10"], ["--count", "500"])
    run.check_books()
    assert run.source["connections_opened"] >= 50
    assert run.source["given_up"] == 0


def test_connections_of_one_address_are_limited(tmp_path):
    run = Run(tmp_path, ["--max-connections-per-source", "3"],
              ["--count", "500", "--source-addresses", "127.0.0.5,127.0.0.6"])
    run.check_books()
    assert set(run.sink["sources"]) - {"127.0.0.1"} == {"127.0.0.5", "127.0.0.6"}
    assert sum(s["turned_away"] for s in run.sink["sources"].values()) == 14


def test_script_decides_by_recipient(tmp_path):
    script = tmp_path / "script"
    script.write_text("rcpt *@d001.test 550 5.1.1 gone\\nfor good\n"
                      "dot *@d002.test delay=30 451 4.3.0 later\n")
    run = Run(tmp_path, ["--script", script], ["--count", "300", "--domains", "3"])
    run.check_books()
    assert {r for _, r in run.taken} == {"r0@d000.test"}
    assert run.source["codes"]["451"] == 100 and run.source["codes"]["550"] == 100


def test_delay_shows_in_the_latency(tmp_path):
    run = Run(tmp_path, ["--delay", "dot=50-60"], ["--count", "100"])
    run.check_books()
    assert 50_000 <= run.source["latency"]["p50_us"] <= run.source["latency"]["max_us"] < 2_000_000


def test_rate_is_kept(tmp_path):
    run = Run(tmp_path, source=["--count", "400", "--rate", "400"])
    run.check_books()
    assert 0.9 < run.source["seconds"] < 3


def test_real_messages_with_dots(tmp_path):
    messages = tmp_path / "eml"
    messages.mkdir()
    (messages / "a.eml").write_bytes(b"Subject: a\n\n.\n..\n.x\nend")
    (messages / "b.eml").write_bytes(b"Subject: b\r\n\r\n" + b"x" * 900 + b"\r\n")
    run = Run(tmp_path, source=["--count", "200", "--eml", messages])
    run.check_books()
    assert len(run.acknowledged) == 200


def test_slow_sides_finish(tmp_path):
    run = Run(tmp_path, ["--slow-reader", "200000"], ["--count", "40", "--size", "20k"])
    run.check_books()
    run = Run(tmp_path, [], ["--count", "20", "--slow-drip", "5000"])
    run.check_books()
    assert run.source["seconds"] > 0.2


def test_lost_mail_is_found(tmp_path):
    """The check of the records can fail."""
    (tmp_path / "sent").write_text("0000002a-0000000007 r0@d000.test r1@d000.test\n")
    port = free_port()
    sink = subprocess.Popen([BENCH, "sink", "--listen", f"127.0.0.1:{port}", "--against",
                             tmp_path / "sent", "--json", tmp_path / "json"],
                            stderr=subprocess.DEVNULL)
    wait_for_port(port)
    sink.terminate()
    assert sink.wait(10) == 1
    result = json.loads((tmp_path / "json").read_text())
    assert result["lost"] == 2
    assert result["lost_examples"][0] == "0000002a-0000000007 r0@d000.test"


def test_duplicates_are_found(tmp_path):
    port = free_port()
    sink = subprocess.Popen([BENCH, "sink", "--listen", f"127.0.0.1:{port}", "--expect", "6",
                             "--settle", "300", "--json", tmp_path / "json"],
                            stderr=subprocess.DEVNULL)
    wait_for_port(port)
    for count in "4", "6":
        subprocess.run([BENCH, "source", "--to", f"127.0.0.1:{port}", "--count", count, "--run",
                        "abc", "--quiet", "--json", "/dev/null"], check=True)
    sink.wait(10)
    result = json.loads((tmp_path / "json").read_text())
    assert (result["unique"], result["duplicated"]) == (6, 4)


def test_ipv6(tmp_path):
    port = free_port(socket.AF_INET6, "::1")
    sink = subprocess.Popen([BENCH, "sink", "--listen", f"[::1]:{port}", "--expect", "50",
                             "--json", tmp_path / "json"], stderr=subprocess.DEVNULL)
    wait_for_port(port, socket.AF_INET6, "::1")
    subprocess.run([BENCH, "source", "--to", f"[::1]:{port}", "--count", "50", "--quiet",
                    "--json", "/dev/null"], check=True)
    assert sink.wait(10) == 0
    assert json.loads((tmp_path / "json").read_text())["sources"]["::1"]["recipients"] == 50


def talk(server, lines):
    """A server that says a fixed text to each connection and hangs up."""
    while True:
        try:
            conn, _ = server.accept()
        except OSError:
            return
        with conn:
            conn.sendall(lines)
            conn.settimeout(0.2)
            try:
                conn.recv(1000)
            except OSError:
                pass


@pytest.mark.parametrize("lines", [b"", b"hello\r\n", b"220", b"554 no\r\n", b"421 no\r\n",
                                   b"220 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n",
                                   b"220-" + b"x" * 5000], ids=repr)
def test_broken_servers_end_in_giving_up(tmp_path, lines):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=talk, args=(server, lines), daemon=True).start()
        port = server.getsockname()[1]
        done = subprocess.run([BENCH, "source", "--to", f"127.0.0.1:{port}", "--count", "5",
                               "--connections", "2", "--give-up", "700ms", "--quiet", "--json",
                               tmp_path / "json"], timeout=20, stderr=subprocess.DEVNULL,
                              check=False)
    assert done.returncode == 0
    result = json.loads((tmp_path / "json").read_text())
    assert result["accepted"] == 0
    assert result["connections_lost"] + result["connect_errors"] > 0


@pytest.mark.parametrize("words, hint", [
    (["sorce"], "did you mean source?"),
    (["source", "--cuont", "1"], "did you mean --count?"),
    (["source", "--count", "x"], "\"x\" is not N"),
    (["source", "--count"], "wants a value"),
    (["source", "--count", "5"], "--to HOST:PORT is missing"),
    (["source", "--to", "localhost"], "is not HOST:PORT"),
    (["sink"], "--listen ADDR:PORT is missing"),
    (["sink", "--fail", "2", "--listen", "127.0.0.1:0"], "is not LIST"),
    (["run", "--scenario", "e2e2k"], "did you mean e2e-2k?"),
    ([], "Usage"),
])
def test_wrong_command_lines_are_explained(words, hint):
    done = subprocess.run([BENCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert hint in done.stderr


def test_connections_that_the_client_broke(tmp_path):
    """Resets and cuts are counted, orderly ends are not; each connection has its two lines."""
    port, lines, out = free_port(), tmp_path / "connections", tmp_path / "sink.json"
    sink = subprocess.Popen([BENCH, "sink", "--listen", f"127.0.0.1:{port}", "--delay", "dot=300", "--json", out,
                             "--record-connections", lines], stderr=subprocess.DEVNULL)
    local = []

    def dialog(last, *more, linger=None):
        """Says it all, waits for no answer to `last`, closes."""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            local.append(s.getsockname()[1])
            reader = s.makefile("rb")
            reader.readline()
            for command in more:
                s.sendall(command)
                while reader.readline()[3:4] == b"-":
                    pass
            s.sendall(last)
            if linger is not None:
                time.sleep(linger)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.close()
    begin = [b"EHLO x.test\r\n", b"MAIL FROM:<a@x.test>\r\n", b"RCPT TO:<b@y.test>\r\n"]
    try:
        wait_for_port(port)
        dialog(b"QUIT\r\n", begin[0])                                    # orderly
        dialog(b"", begin[0])                                             # an end without QUIT, nothing open
        dialog(b"", begin[0], linger=0.05)                                # reset, nothing open
        dialog(b"", *begin)                                               # cut between two commands
        dialog(b"Subject: x\r\n\r\nhalf", *begin, b"DATA\r\n", linger=0.05)  # reset and cut in the text
        dialog(b"x\r\n.\r\n", *begin, b"DATA\r\n")                        # cut while the dot waits
        dialog(b"x\r\n.\r\n", *begin, b"DATA\r\n", linger=0.05)           # reset while the dot waits
        time.sleep(0.6)
    finally:
        sink.send_signal(signal.SIGTERM)
        sink.wait(20)
    result = json.loads(out.read_text())
    assert result["connections_reset"] == 3
    assert result["cut_in_transaction"] == 4
    words = [line.split() for line in lines.read_text().splitlines()]
    for p in local:
        assert [w[0] for w in words if w[2] == str(p)][0] == "open"
    ends = {int(w[2]): w[0] for w in words if w[0] != "open"}
    assert [ends[p] for p in local[:3]] == ["ours", "eof", "reset"]
    assert ends[local[4]] == ends[local[6]] == "reset"
