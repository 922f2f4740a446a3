"""`--systemd-cgroup` against a real message bus, with a manager behind it that does what systemd's does.

No systemd runs where these tests do: proved are the protocol and what we ask for, not systemd's answer.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.peers import require
from support.run_bundles import OURS, Bundle, Containers

from ocitool.errors import RunError
from ocitool.run import dbus, newcgroup

pytestmark = [pytest.mark.root, pytest.mark.peers]

MANAGER = Path(__file__).parents[2] / "support" / "run_systemd_manager.py"
# A hyphen would name a slice within another.
SLICE = f"{OURS.replace('-', '')}.slice"
CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""


class Bus:
    """A message bus, and the manager on it.

    Attributes:
        address: of the bus.
        log: the manager's calls.
    """

    def __init__(self, base: Path) -> None:
        self.address = f"unix:path={base}/bus"
        self.log = base / "calls"
        self.log.touch()

    def calls(self, member: str = "") -> list[list[Any]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call for call in found if member in ("", call[0])]


@pytest.fixture
def bus(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    require("dbus-daemon")
    found = Bus(workplace)
    (workplace / "bus.conf").write_text(CONFIGURATION.format(path=workplace / "bus"))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", found.address)
    daemon = subprocess.Popen(
        ["dbus-daemon", "--nofork", "--print-address", f"--config-file={workplace}/bus.conf"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert daemon.stdout is not None
    assert daemon.stdout.readline()
    mounts = [
        each.mount_point
        for each in newcgroup.own_hierarchies()
        if each.unified or "name=systemd" in each.controllers
    ]
    manager = subprocess.Popen(
        ["/usr/bin/python3", MANAGER, found.log, *mounts], stdout=subprocess.PIPE, text=True
    )
    assert manager.stdout is not None
    assert manager.stdout.readline() == "ready\n", "python3-dbus and python3-gi are needed"
    yield found
    for process in (manager, daemon):
        process.kill()
        process.communicate()
    for mount in mounts:
        with suppress(FileNotFoundError):
            Path(mount, SLICE).rmdir()


@pytest.fixture
def containers(bus: Bus, containers: Containers) -> Containers:
    """The command line, whose containers end before the message bus does."""
    del bus
    return containers


def scope(bundle: Bundle, name: str, **resources: Any) -> Bundle:
    linux = bundle.config["linux"]
    linux["cgroupsPath"] = f"{SLICE}:made:{name}"
    linux["resources"].update(resources)
    bundle.save()
    return bundle


def test_a_container_is_a_scope_from_create_to_delete(
    containers: Containers, bundle: Bundle, bus: Bus
) -> None:
    limits = {"memory": {"limit": 64 << 20}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
    scope(bundle, "one", **limits).shell("cat /proc/self/cgroup >/seen; sleep 60")
    done = containers.call("--systemd-cgroup", "create", "--bundle", str(bundle.path), f"{OURS}-scope")
    assert done.returncode == 0, done.stderr
    ((_, unit, mode, properties),) = bus.calls("StartTransientUnit")
    assert (unit, mode) == ("made-one.scope", "fail")
    given = dict(properties)
    assert given["Slice"] == SLICE
    assert given["Delegate"] is True
    assert given["TasksMax"] == 50
    assert given["CPUQuotaPerSecUSec"] == 500_000
    assert 64 << 20 in (given.get("MemoryMax"), given.get("MemoryLimit"))
    assert containers.call("start", f"{OURS}-scope").returncode == 0
    while not (bundle.rootfs / "seen").exists() or not (bundle.rootfs / "seen").read_text().count("\n") > 1:
        assert containers.state(f"{OURS}-scope")["status"] == "running"
    held = Path(f"/proc/{containers.state(f'{OURS}-scope')['pid']}/cgroup").read_text()
    assert f"name=systemd:/{SLICE}/made-one.scope" in held or f"0::/{SLICE}/made-one" in held
    assert f"memory:/{SLICE}/made-one.scope" in held or f"0::/{SLICE}" in held
    # The stand-in is gone: only the container's processes are in the scope.
    listed = json.loads(containers.call("ps", "--format", "json", f"{OURS}-scope").stdout)
    assert listed == [containers.state(f"{OURS}-scope")["pid"]]
    done = containers.call("update", "--pids-limit", "70", f"{OURS}-scope")
    assert done.returncode == 0, done.stderr
    assert bus.calls("SetUnitProperties") == [["SetUnitProperties", unit, True, [["TasksMax", 70]]]]
    assert containers.call("delete", "--force", f"{OURS}-scope").returncode == 0
    assert bus.calls("StopUnit") == [["StopUnit", unit, "replace"]]
    assert scopes() == []


def test_a_scope_is_taken_away_when_the_message_bus_is_gone(
    containers: Containers, bundle: Bundle, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope(bundle, "four").shell("sleep 60")
    words = ("--systemd-cgroup", "run", "--bundle", str(bundle.path), "--detach", f"{OURS}-scope")
    assert containers.call(*words).returncode == 0
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    assert containers.call("delete", "--force", f"{OURS}-scope").returncode == 0
    assert scopes() == []


def scopes() -> list[str]:
    """What is left of the tests' scopes."""
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{SLICE}/*.scope")]


def test_a_run_ends_with_its_scope(containers: Containers, bundle: Bundle, bus: Bus) -> None:
    scope(bundle, "two").shell("exit 7")
    assert (
        containers.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), f"{OURS}-scope").returncode
        == 7
    )
    assert [call[0] for call in bus.calls() if call[0] != "Subscribe"] == [
        "StartTransientUnit", "StopUnit", "ResetFailedUnit",
    ]  # fmt: skip


def test_a_job_that_fails_and_a_unit_that_exists_are_errors(
    containers: Containers, bundle: Bundle, bus: Bus
) -> None:
    words = ("--systemd-cgroup", "run", "--bundle", str(bundle.path))
    scope(bundle, "refused")
    done = containers.call(*words, f"{OURS}-refused")
    assert "the job for made-refused.scope ended with 'failed'" in done.stderr
    scope(bundle, "three").shell("sleep 60")
    assert containers.call(*words, "--detach", f"{OURS}-first").returncode == 0
    done = containers.call(*words, f"{OURS}-second")
    assert "systemd has a unit made-three.scope already" in done.stderr
    assert containers.state(f"{OURS}-first")["status"] == "running"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/a/b", "is not slice:prefix:name"),
        ("a.slice:b", "is not slice:prefix:name"),
        ("a:b:c", "names no slice"),
        ("a.slice:../b:c", "names no slice"),
        ("a.slice:b:", "names no slice"),
    ],
)
def test_a_path_of_another_form_is_refused(
    containers: Containers, bundle: Bundle, path: str, said: str
) -> None:
    bundle.config["linux"]["cgroupsPath"] = path
    bundle.save()
    done = containers.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), f"{OURS}-path")
    assert done.returncode != 0
    assert said in done.stderr


def test_without_a_message_bus_that_is_said(
    containers: Containers, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    done = containers.call("--systemd-cgroup", "run", "--bundle", str(bundle.path), f"{OURS}-no-bus")
    assert done.returncode == 125
    assert "message bus unix:path=/nowhere/bus: No such file or directory" in done.stderr


def test_every_type_goes_over_the_bus_and_back(bus: Bus) -> None:
    """The bus itself checks each message, and ends the connection of whoever sends a wrong one."""
    connection = dbus.Bus(bus.address)
    names = connection.call(
        "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ListNames"
    )
    assert "org.freedesktop.systemd1" in names[0]
    with pytest.raises(dbus.CallError) as raised:
        connection.call(
            "org.freedesktop.DBus", "/x", "org.freedesktop.DBus", "GetNameOwner", "s", "nobody.here"
        )
    assert raised.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
    connection.close()
    with pytest.raises(RunError, match="names no Unix socket"):
        dbus.Bus("tcp:host=localhost")
