"""A full disk: mail is refused for a while (452), none is lost, delivery goes on, acceptance returns by itself."""
import os
import shutil
import socket
import subprocess
import tempfile

import pytest

import survive

MIB = 1 << 20
SYSTEMS = {
    "ext4 without journal": ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal"],
    "ext4 with journal": ["mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}


def needs(*programs):
    if os.geteuid() != 0:
        pytest.skip("SKIPPED: loop mounts need root")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"SKIPPED: {program} is not installed")


class Disk:
    """A small file system in a file."""

    def __init__(self, directory, make, mib):
        self.image = f"{directory}/disk.img"
        self.path = f"{directory}/spool"
        os.makedirs(self.path)
        with open(self.image, "wb") as f:
            f.truncate(mib * MIB)
        subprocess.run([*make, self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)

    def free(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def fill(self, leave=0):
        """Somebody else takes the room."""
        with open(f"{self.path}/other", "ab") as f:
            while self.free() > leave:
                try:
                    f.write(bytes(min(MIB, self.free() - leave)))
                    f.flush()
                except OSError:
                    return

    def give_back(self):
        os.unlink(f"{self.path}/other")

    def close(self):
        subprocess.run(["umount", "-l", self.path], check=False)


@pytest.fixture(params=list(SYSTEMS))
def place(request):
    make = SYSTEMS[request.param]
    needs(make[0], "mount", "losetup")
    directory = tempfile.mkdtemp(prefix="mochila-full-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    # XFS has a smallest size of its own.
    disk = Disk(directory, make, 400 if request.param == "xfs" else 160)
    node = survive.Node(workers=2, directory=directory,
                        extra={"spool_options": {"segment": "4M", "reserve": "16M", "spares": 1}})
    ends = []
    try:
        yield node, disk, ends
    finally:
        for end in ends:
            end.close()
        node.kill_all()
        disk.close()
        shutil.rmtree(directory, ignore_errors=True)


def reply_to_mail(port):
    """The node's answer to MAIL FROM."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            f = s.makefile("rwb")
            f.readline()
            f.write(b"HELO t.test\r\n")
            f.flush()
            f.readline()
            f.write(b"MAIL FROM:<a@t.test>\r\n")
            f.flush()
            return f.readline().decode()
    except OSError:
        return ""


def refuses(node, source):
    assert source.process.poll() is None, "the source ended before the disk was full"
    return reply_to_mail(node.port).startswith("452 ")


def settle(node, sink, source, count):
    sent = source.wait(120)
    ledger = survive.drained(node, 60)
    assert node.stop() == 0
    assert sent["accepted"] == count
    assert sent["answered_4xx"] > 0, "no 452 ever: the disk was not full"
    promised = source.promised()
    assert survive.judge(promised, sink.finish(), 0) == []
    assert ledger["delivered"] == count and survive.balanced(ledger), ledger
    assert node.unplanned() == []


def test_full_while_accepting(place):
    """Nothing leaves (delivery is held), until no more fits; then it is let go."""
    node, disk, ends = place
    node.start()
    sink = survive.Sink(node.dir, node.sink_port)
    ends.append(sink)
    assert node.ctl("hold", "all").returncode == 0
    count = disk.free() // 10240 + 2000
    source = survive.Source(node.dir, node.port, "--count", str(count), "--connections", "20", "--size", "10k",
                            "--retry", "--retry-delay", "100ms", "--give-up", "0")
    ends.append(source)
    survive.wait_for("452 to MAIL", lambda: refuses(node, source), 60)
    held = node.ledger()
    assert survive.balanced(held) and held["queued"] > 1000, held
    assert node.ctl("release", "all").returncode == 0
    settle(node, sink, source, count)


def test_full_while_delivering(place):
    """Somebody else fills the disk to the last block while mail flows, and makes room again later."""
    node, disk, ends = place
    node.start()
    sink = survive.Sink(node.dir, node.sink_port, "--delay", "dot=20-60")
    ends.append(sink)
    count = 12000
    source = survive.Source(node.dir, node.port, "--count", str(count), "--connections", "50", "--size",
                            "2k:5,10k:5", "--retry", "--retry-delay", "100ms", "--give-up", "0")
    ends.append(source)
    survive.wait_for("the flow of mail", lambda: (node.ledger() or {}).get("delivered", 0) > 300)
    disk.fill()
    survive.wait_for("452 to MAIL", lambda: refuses(node, source), 30)
    # What was accepted is delivered although nothing can be written elsewhere on this disk.
    survive.drained(node, 60)
    disk.give_back()
    settle(node, sink, source, count)


def test_full_at_start(place):
    """A node whose disk is full comes up, delivers what it has, and accepts again when there is room."""
    node, disk, ends = place
    node.start()
    sink = survive.Sink(node.dir, node.sink_port)
    ends.append(sink)
    assert node.ctl("hold", "all").returncode == 0
    first = survive.Source(node.dir, node.port, "--count", "2000", "--connections", "20", "--size", "10k", name="first")
    ends.append(first)
    assert first.wait()["accepted"] == 2000
    assert node.stop() == 0
    disk.fill()
    node.start()
    assert reply_to_mail(node.port).startswith("452 ")
    assert node.ledger()["queued"] == 2000
    assert node.ctl("release", "all").returncode == 0
    ledger = survive.drained(node, 60)
    assert ledger["delivered"] == 2000 and survive.balanced(ledger)
    disk.give_back()
    survive.wait_for("acceptance to return", lambda: reply_to_mail(node.port).startswith("250 "), 30)
    assert node.stop() == 0
    assert survive.judge(first.promised(), sink.finish(), 0) == []
    assert node.unplanned() == []
