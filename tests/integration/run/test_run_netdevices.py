"""Network devices of the host in containers (config-linux.md, "Network Devices"), in a network of our own."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from support.peers import require
from support.run_bundles import OURS, Bundle, Containers, finished

pytestmark = pytest.mark.root
DEVICES = """
ip link add v0 mtu 1400 address 02:00:00:00:00:07 type veth peer name v1
ip address add 10.9.0.1/24 broadcast 10.9.0.255 dev v0
ip address add 10.9.1.1 peer 10.9.1.2/32 dev v0
ip address add 2001:db8::7/64 dev v0 nodad noprefixroute
ip address add 10.9.2.1/24 scope link dev v0
ip link set v0 up
"""
SHOW = "busybox ip -o link; busybox ip -o address"


def run(
    containers: Containers, bundle: Bundle, devices: dict[str, Any], *, host: str = DEVICES
) -> subprocess.CompletedProcess[str]:
    """Run the bundle from a network namespace that has some devices, and show what is left there."""
    require("ip", "unshare")
    bundle.config["linux"]["netDevices"] = devices
    bundle.shell(SHOW)
    script = f'{host}"$@" ||:; ip -o link >&2'
    command = containers.command("run", "--bundle", str(bundle.path), f"{OURS}-devices")
    return finished(["unshare", "--net", "sh", "-ec", script, "sh", *command])


@pytest.mark.parametrize("userns", [False, True], ids=["", "in a user namespace"])
def test_a_device_comes_with_its_addresses_and_attributes_under_its_new_name_and_up(
    containers: Containers, bundle: Bundle, *, userns: bool
) -> None:
    if userns:
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            bundle.config["linux"][kind] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    done = run(containers, bundle, {"v0": {"name": "inside"}})
    shown = done.stdout
    (link,) = (line for line in shown.splitlines() if "inside@" in line and "mtu" in line)
    assert "mtu 1400" in link
    assert "02:00:00:00:00:07" in link
    assert ",UP" in link
    assert "inet 10.9.0.1/24 brd 10.9.0.255 scope global inside" in shown
    assert "inet 10.9.1.1 peer 10.9.1.2/32 scope global inside" in shown
    assert "inet6 2001:db8::7/64 scope global" in shown
    # "only addresses intended for persistent, external communication are transferred"
    assert "10.9.2.1" not in shown
    assert "v0@" not in done.stderr


def test_a_template_and_a_name_that_is_kept(containers: Containers, bundle: Bundle) -> None:
    done = run(containers, bundle, {"v0": {"name": "eth%d"}, "v1": {}})
    assert " eth0@" in done.stdout
    assert " v1@" in done.stdout
    assert "10.9.0.1/24" in done.stdout


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({"v0": {}, "nothing": {}}, "network device nothing: the host has none of this name"),
        ({"v0": {"name": "lo"}}, "network device v0: the container has a lo already"),
    ],
)
def test_a_device_that_cannot_be_moved_is_an_error_and_all_stay(
    containers: Containers, bundle: Bundle, devices: dict[str, Any], said: str
) -> None:
    done = run(containers, bundle, devices)
    assert said in done.stderr
    assert done.stdout == ""
    assert "v0@v1" in done.stderr


def test_without_a_network_namespace_no_device_is_moved(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"].remove({"type": "network"})
    done = run(containers, bundle, {"v0": {}})
    assert "linux.netDevices needs a network namespace" in done.stderr
    bundle.config["linux"]["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})
    done = run(containers, bundle, {"v0": {}})
    assert "the container has the network namespace that they are in" in done.stderr
