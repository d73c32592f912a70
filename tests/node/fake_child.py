#!/usr/bin/python3
"""A child of mochilad that behaves well or badly on purpose.

usage: fake_child.py DIRECTORY KIND
Its behaviour is in DIRECTORY/KIND-<slot>.mode or DIRECTORY/KIND.mode (read anew by each process); what it
sees goes to DIRECTORY/KIND.seen, one JSON line each. An api reads orders from DIRECTORY/queries, a FIFO.
"""
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import control_frames as cf  # noqa: E402

DIRECTORY, KIND = sys.argv[1], sys.argv[2]
control = socket.socket(fileno=3)
locks = []


def see(**what):
    what.update(pid=os.getpid(), t=time.monotonic())
    line = json.dumps(what) + "\n"
    fd = os.open(f"{DIRECTORY}/{KIND}.seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode())
    os.close(fd)


def mode(slot):
    for name in (f"{KIND}-{slot}.mode", f"{KIND}.mode"):
        try:
            with open(f"{DIRECTORY}/{name}") as f:
                return f.read().strip()
        except FileNotFoundError:
            pass
    return "good"


def receive():
    b, fds, flags, _ = socket.recv_fds(control, 65536, 100)
    if b == b"":
        see(event="eof")
        sys.exit(0)
    kind, f = cf.decode(b)
    return kind, f, fds


def receive_start():
    lists, all_fds = {}, []
    while True:
        kind, f, fds = receive()
        assert kind == cf.START, kind
        all_fds += fds
        for field, values in f.items():
            if field in (5, 6, 7, 8, 12):
                lists.setdefault(field, []).extend(values)
            else:
                lists[field] = values
        if f[14] == [1]:
            return lists, all_fds


def lane_of(b):
    f = cf.fields(b)
    return {"lane": f[1][0], "address": f[2][0].hex(), "shard": f[3][0], "worker": f[4][0],
            "epoch": f[5][0]}


def hold_of(b):
    f = cf.fields(b)
    return [f[1][0].decode(), f[2][0].decode()]


def see_start(f, fds):
    see(event="start", generation=f[1][0], slot=f[2][0], workers=f[3][0], boot=f[4][0],
        incarnation=f[13][0], shards=f.get(5, []), lanes=[lane_of(b) for b in f.get(6, [])],
        holds=[hold_of(b) for b in f.get(7, [])], poison=[b.hex() for b in f.get(8, [])],
        listeners=f.get(12, []), core=f[10][0], held=f[11][0], name=f[9][0].decode(),
        fds=len(fds), config=os.pread(fds[0], 1 << 20, 0).decode(),
        env=sorted(os.environ), open_fds=sorted(int(n) for n in os.listdir("/proc/self/fd")),
        sockets=[socket.socket(fileno=os.dup(fd)).getsockname()[1] for fd in fds[3:]]
        if KIND == "worker" else [], sigmask=signal.pthread_sigmask(signal.SIG_BLOCK, []) != set())


def write_page(page_fd, marker=None):
    """Writes to the counters page as a worker does: who it is, the time, the message it works on."""
    with open(f"{DIRECTORY}/page.json") as f:
        layout = json.load(f)
    with mmap.mmap(page_fd, layout["bytes"]) as m:
        m[layout["pid"]:layout["pid"] + 8] = os.getpid().to_bytes(8, "little")
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        m[layout["heartbeat"]:layout["heartbeat"] + 8] = now.to_bytes(8, "little")
        if marker is not None:
            m[layout["marker"]:layout["marker"] + 16] = bytes.fromhex(marker)


def take_locks(shards):
    """Waits for the shards as a worker does, between frames."""
    for shard in shards:
        fd = os.open(f"{DIRECTORY}/shard-{shard}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        locks.append(fd)
    return True


def on_frame(kind, f, fds, how):
    what = cf.NAMES[kind]
    if kind == cf.PEER_UP:
        sizes = [os.fstat(fd).st_size for fd in fds]
        see(event=what, peer=f[1][0], slot=f.get(2, [None])[0], fds=len(fds), sizes=sizes,
            rings=[os.fstat(fd).st_ino for fd in fds[:2]])
    elif kind == cf.HOLDS:
        see(event=what, holds=[hold_of(b) for b in f.get(1, [])], last=f[2][0])
    elif kind == cf.QUERY:
        see(event=what, verb=f[2][0].decode())
        if how != "silent":
            control.send(cf.answer(f[1][0], b'{"rows":', last=False))
            control.send(cf.answer(f[1][0], b'[]}'))
    elif kind == cf.ANSWER:
        see(event=what, id=f[1][0], last=f[2][0], body=f[3][0].decode(), status=f[4][0],
            slot=f.get(5, [None])[0])
    elif kind == cf.DRAIN:
        see(event=what, seconds=f[1][0])
        if how != "ignores-drain":
            control.send(cf.frame(cf.DRAINED, cf.number(1, 0)))
            see(event="leaves")
            sys.exit(0)
    else:
        see(event=what, peer=f.get(1, [None])[0])
    for fd in fds:
        os.close(fd)


def misbehave_early(how, generation):
    if how == "never-ready":
        signal.pause()
    if how == "dies-before-ready":
        sys.exit(3)
    if how == "dies-before-ready-later" and generation > 1:
        sys.exit(4)
    if how == "never-ready-later" and generation > 1:
        signal.pause()
    if how == "wrong-pid":
        control.send(cf.ready(1, generation))
        signal.pause()
    if how == "wrong-version":
        control.send(cf.ready(os.getpid(), generation, version=9))
        signal.pause()
    if how == "bad-frame-early":
        control.send(b"\xff\xff\xff")
        signal.pause()


def misbehave(how, page_fd):
    if how.startswith("hangs"):
        write_page(page_fd, *how.split()[1:])
        signal.pause()
    if how == "beats":
        while not select.select([3], [], [], 0.2)[0]:
            write_page(page_fd)
    if how == "dies-after-ready":
        sys.exit(5)
    if how == "dies-once-after-ready":
        if not os.path.exists(f"{DIRECTORY}/died"):
            open(f"{DIRECTORY}/died", "w").close()
            sys.exit(5)
    if how == "bad-frame":
        control.send(b"\xff\xff\xff")
        signal.pause()
    if how == "wrong-frame":  # well-formed, but nothing a worker may say
        control.send(cf.frame(cf.DRAIN, cf.number(1, 1)))
        signal.pause()
    if how == "sends-descriptor":
        socket.send_fds(control, [cf.recovered()], [0])
        signal.pause()
    if how == "closes-control":
        os.close(3)
        signal.pause()


def main():
    f, fds = receive_start()
    see_start(f, fds)
    slot, generation = f[2][0], f[1][0]
    how = mode(slot)
    if how == "ignores-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        how = "ignores-drain"
    misbehave_early(how, generation)
    control.send(cf.ready(os.getpid(), generation))
    if how.startswith("marker "):
        write_page(fds[1], how.split()[1])
        os.kill(os.getpid(), signal.SIGSEGV)
    if how.startswith("works on "):
        write_page(fds[1], how.split()[2])
    recovered = KIND == "api"
    if not recovered and take_locks(f.get(5, [])):
        recovered = True
        control.send(cf.recovered(7))
        see(event="recovered", slot=slot, generation=generation)
    misbehave(how, fds[1])
    queries = os.open(f"{DIRECTORY}/queries", os.O_RDWR) if KIND == "api" else None
    watched = [3] + ([queries] if queries is not None else [])
    while True:
        readable, _, _ = select.select(watched, [], [], None if recovered else 0.05)
        if 3 in readable:
            kind, f2, fds2 = receive()
            if KIND == "api" and kind == cf.START:
                see_start(f2, fds2)
                control.send(cf.ready(os.getpid(), f2[1][0]))
            else:
                on_frame(kind, f2, fds2, how)
        if queries in readable:
            for line in os.read(queries, 65536).decode().splitlines():
                number, verb, *args = line.split("\t")
                control.send(cf.query(int(number), verb, *args))
        if not recovered and take_locks(f.get(5, [])):
            recovered = True
            control.send(cf.recovered(7))
            see(event="recovered", slot=slot, generation=generation)


main()
