"""Addresses that netd brings, as the whole node sees it: in an own network namespace, as root."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.geteuid() == 0


def alone(name):
    """Runs a function below in a network namespace that ends with it."""
    done = subprocess.run(["unshare", "-n", sys.executable, os.path.abspath(__file__), name],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.mark.skipif(not ROOT, reason="needs root for a network namespace")
@pytest.mark.parametrize("name", ["life", "missing"])
def test_alone(name):
    alone(name)


def sh(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


def lanes(node):
    return {x["lane"]: x for x in node.api("cluster")["lanes"]}


def run_all(node):
    return all(x["run"] for x in lanes(node).values())


def held():
    return sum("192.0.2." in a["local"] for link in json.loads(sh("ip -j addr show dev d0")) for a in link["addr_info"])


def netd(node):
    return next((c["pid"] for c in node.api("status")["children"] if c["name"] == "netd" and c["state"] == "ready"), 0)


def node_on(interface):
    from mochila_node import Node
    sh("ip link set lo up; ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up;"
       "ip addr add 198.51.100.1/24 dev d0")
    return Node(lanes=("192.0.2.5", "192.0.2.6"), extra=f"cluster: {{driver: l2, interface: {interface}}}")


def life():
    """Lanes run when their addresses are here; a dead netd stops nobody; an address that goes is fetched again."""
    from mochila_node import wait_for
    with node_on("d0") as node:
        wait_for("the addresses", lambda: run_all(node) and held() == 2, 10)
        first = netd(node)
        os.kill(first, signal.SIGKILL)
        assert run_all(node)
        wait_for("another netd", lambda: netd(node) not in (0, first))
        time.sleep(0.5)
        assert run_all(node) and held() == 2
        sh("ip addr del 192.0.2.5/32 dev d0")
        wait_for("the address to be missed", lambda: "lane 192.0.2.5: its address has gone" in node.log_text())
        wait_for("the address again", lambda: run_all(node) and held() == 2, 10)
        assert node.stop() == 0
        assert held() == 0, "an orderly stop leaves no address"


def missing():
    """Lanes without their address wait and say why; a reload puts it right, and takes netd away."""
    from mochila_node import wait_for
    with node_on("nosuch") as node:
        wait_for("a reason", lambda: "no interface nosuch" in lanes(node)["192.0.2.5"].get("why", ""), 10)
        assert not run_all(node) and held() == 0
        assert node.log_text().count("lane 192.0.2.5 does not run") == 1
        node.extra = "cluster: {driver: l2, interface: d0}"
        node.write_config()
        node.cli("reload")
        wait_for("the addresses", lambda: run_all(node) and held() == 2, 30)
        node.extra = ""
        node.write_config()
        node.cli("reload")
        wait_for("no netd", lambda: netd(node) == 0 and held() == 0)
        assert run_all(node)


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    {"life": life, "missing": missing}[sys.argv[1]]()
