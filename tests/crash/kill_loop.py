#!/usr/bin/python3
"""SIGKILLs random processes of a node under load, and then counts what came of the mail.

    kill_loop.py --kills 50 --seed 7

The source does not send again what was cut off after its end of data (no --retry): so every duplicate at the
sink is the node's own. Promises that are checked:
  - what was acknowledged arrived, all of it, once the node had time;
  - duplicates are at most the connections to the sink that were open when their worker was killed;
  - the ledger balances after every restart and agrees with the records at the end;
  - nothing dies unasked: no MUST, no sanitizer report, no signal but ours, and orphans leave with status 0;
  - the node serves again soon (the times are printed; the bound is generous, machines are slow).
The moments and the victims come from the seed; what the kernel does in between does not.
"""
import argparse
import ctypes
import os
import random
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "node"))
import survive  # noqa: E402

BACK_S_MAX = 30
VICTIMS = ["worker"] * 10 + ["workers"] * 2 + ["master"] * 4 + ["api"] * 3 + ["everything"]


def adopt_orphans():
    """Workers whose master was killed become ours, so that their exit status is seen."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError("prctl")


class Loop:
    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.node = survive.Node(workers=options.workers, lanes=4)
        self.doubles_most = 0
        self.faults = []
        self.back_ms = []
        self.killed = 0          # processes, by us, under a living master
        self.orphans = {}

    def fault(self, text):
        print(f"  FAULT {text}", flush=True)
        self.faults.append(text)

    # --- one kill ---
    def freeze(self, pids):
        """Stopped first, so that the count of open deliveries is the one at the kill."""
        for pid in pids:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        return sum(survive.sockets_to(p, self.node.sink_port) for p in pids)

    @staticmethod
    def finish_off(pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_children(self, pids):
        self.doubles_most += self.freeze(pids)
        self.finish_off(pids)
        self.killed += len(pids)

    def kill_master(self, with_children):
        children = self.node.children()
        if with_children:
            self.doubles_most += self.freeze(children)
        os.kill(self.node.process.pid, signal.SIGKILL)
        if with_children:
            self.finish_off(children)
        self.node.process.wait()
        for pid in children:
            self.orphans[pid] = with_children
        self.node.start(wait=False)

    def kill(self, victim):
        workers = self.node.pids("mochila-worker")
        if victim == "worker" and workers:
            self.kill_children([self.rng.choice(sorted(workers))])
        elif victim == "workers":
            self.kill_children(workers)
        elif victim == "api":
            self.kill_children(self.node.pids("mochila-api"))
        elif victim in ("master", "everything"):
            self.kill_master(victim == "everything")

    # --- looking ---
    def reap(self, wait=False):
        for pid, killed in list(self.orphans.items()):
            try:
                got, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
            except ChildProcessError:
                got, status = pid, 0
            if got == 0:
                continue
            del self.orphans[pid]
            code = os.waitstatus_to_exitcode(status)
            if code != 0 and not (killed and code == -signal.SIGKILL):
                self.fault(f"orphan {pid} of a killed master left with {code}")

    def wait_back(self):
        began = time.monotonic()
        try:
            survive.wait_for("the node to serve again", self.node.serves, BACK_S_MAX, 0.01)
        except AssertionError as e:
            self.fault(str(e))
            raise
        self.back_ms.append(round(1000 * (time.monotonic() - began)))
        self.check_ledger()

    def check_ledger(self):
        l = self.node.ledger()
        if l is None:
            self.fault("no answer to `mochila ledger`")
        elif l["balance"] != 0 or not survive.balanced(l):
            self.fault(f"the ledger does not balance: {l}")

    def round(self, i):
        time.sleep(self.rng.uniform(0.02, self.options.gap))
        victim = self.rng.choice(VICTIMS)
        hasty = self.rng.random() < 0.15    # the next kill hits a node that is still recovering
        self.kill(victim)
        self.reap()
        if hasty and i + 1 < self.options.kills:
            self.say(i, victim, "not waited for")
            return
        self.wait_back()
        self.say(i, victim, f"back after {self.back_ms[-1]} ms")

    def say(self, i, victim, text):
        if not self.options.quiet:
            print(f"  kill {i + 1:3} {victim:10} {text}; at most {self.doubles_most} duplicates so far",
                  flush=True)

    # --- the whole ---
    def run(self):
        node, o = self.node, self.options
        sink = survive.Sink(node.dir, node.sink_port, "--delay", "dot=0-20")
        source = None
        try:
            node.start()
            source = survive.Source(node.dir, node.port, "--connections", "50", "--duration", "3600s", "--rate",
                                    str(o.rate), "--size", "2k:70,10k:26,400k:4", "--mode", o.mode,
                                    "--give-up", "0", "--timeout", "20s")
            for i in range(o.kills):
                self.round(i)
            self.wait_back()
            sent = source.stop(90)
            ledger = survive.drained(node, 120)
            self.settle(sink, source, sent, ledger)
        finally:
            for end in (source, sink):
                if end is not None:
                    end.close()
            if self.faults or sys.exc_info()[0] is not None:
                keep_log(node)
            node.close()
        return not self.faults

    def settle(self, sink, source, sent, ledger):
        if self.node.stop() != 0:
            self.fault("mochilad did not stop with status 0")
        self.reap(wait=True)
        copies = sink.finish()
        promised = source.promised()
        for line in survive.judge(promised, copies, self.doubles_most):
            self.fault(line)
        for line in self.node.unplanned(killed=range(self.killed)):
            self.fault(line)
        if len(promised) < 100:
            self.fault(f"only {len(promised)} messages were taken: that was no load")
        if not survive.balanced(ledger):
            self.fault(f"the last ledger does not balance: {ledger}")
        if not len(promised) <= ledger["accepted"] <= len(promised) + sent["given_up"]:
            self.fault(f"the ledger says {ledger['accepted']} accepted, the source had {len(promised)} promises "
                       f"and {sent['given_up']} answers that were cut off")
        doubles = sum(n - 1 for n in copies.values())
        back = sorted(self.back_ms)
        print(f"{self.options.kills} kills: promised {len(promised)}, cut off {sent['given_up']}, delivered "
              f"{len(copies)} different, lost {len([k for k in promised if k not in copies])}, duplicated "
              f"{doubles} (at most {self.doubles_most}); back after {back[len(back) // 2]} ms in the median, "
              f"{back[-1]} ms at worst", flush=True)


def keep_log(node):
    out = os.environ.get("MOCHILA_KEEP_LOG", f"/var/tmp/kill_loop-{os.getpid()}.log")
    with open(out, "w") as f:
        f.write(node.log())
        f.write(node.stderr())
    print(f"  the node's log: {out}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    p.add_argument("--gap", type=float, default=1.0, help="longest pause before a kill, seconds")
    p.add_argument("--rate", type=int, default=800, help="messages a second")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--mode", default="pipelined", choices=["bare", "pipelined", "chunking"])
    p.add_argument("--quiet", action="store_true")
    options = p.parse_args()
    print(f"kill_loop --kills {options.kills} --seed {options.seed} --mode {options.mode} with {survive.BIN}",
          flush=True)
    adopt_orphans()
    good = Loop(options).run()
    if not good:
        print(f"FAILED; again with --seed {options.seed}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
