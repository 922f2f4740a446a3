"""The host's devices, as command lines ask for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ocitool.errors import InvalidReference, RunError
from ocitool.run import defaults, devices, spec
from ocitool.run.options import RunOptions, apply


def _apply(*words: str, rootless: bool = False) -> dict[str, Any]:
    return spec.check(apply(defaults.config(rootless=rootless), RunOptions(devices=words)))


@pytest.mark.parametrize(
    ("text", "path", "access"),
    [
        ("/dev/null", "/dev/null", "rwm"),
        ("/dev/null:/dev/x", "/dev/x", "rwm"),
        ("/dev/null:r", "/dev/null", "r"),
        ("/dev/null:/dev/x/:rw", "/dev/x", "rw"),
    ],
)
def test_a_device_becomes_a_node_and_a_rule(text: str, path: str, access: str) -> None:
    linux = _apply(text)["linux"]
    info = Path("/dev/null").stat()
    number = {"type": "c", "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
    owner = {"fileMode": info.st_mode & 0o7777, "uid": info.st_uid, "gid": info.st_gid}
    assert linux["devices"] == [{"path": path, **number, **owner}]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, **number, "access": access},
    ]


def test_in_a_user_namespace_the_hosts_own_node_is_mounted() -> None:
    config = _apply("/dev/null:/dev/x", rootless=True)
    assert "devices" not in config["linux"]
    assert config["mounts"][-1] == {
        "destination": "/dev/x", "type": "bind", "source": "/dev/null",
        "options": ["bind", "rprivate", "nosuid", "noexec"],
    }  # fmt: skip


def test_the_later_one_of_two_on_a_path_is_there() -> None:
    minors = [node["minor"] for node in _apply("/dev/null:/dev/x", "/dev/zero:/dev/x")["linux"]["devices"]]
    assert minors == [os.minor(Path("/dev/zero").stat().st_rdev)]


def test_a_link_is_the_device_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    (found,) = devices.named(f"{tmp_path}/link:/dev/x")
    assert found.info.st_rdev == Path("/dev/null").stat().st_rdev


@pytest.mark.parametrize(
    "text", ["", "null", "/dev/null:", "/dev/null:x", "/dev/null:/a:/b", "/dev/null:/a:"]
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not HOST"):
        devices.named(text)


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        devices.named(f"{tmp_path}/none")
    with pytest.raises(RunError, match="there is no device"):
        devices.named(str(tmp_path))


def test_all_devices_of_the_host_are_those_below_dev_that_no_container_has_by_itself() -> None:
    found = {device.path for device in devices.of_host()}
    assert found
    assert not found & {"/dev/null", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/fd"}
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in found)
    (below,) = {Path(path).parent for path in found if path == "/dev/net/tun"} or {Path("/dev/net")}
    assert [device.path for device in devices.named("/dev/net:/x")] == (
        ["/x/tun"] if below.exists() and (below / "tun").exists() else []
    )


def _allowed(*rules: str, rootless: bool = False) -> Any:
    options = RunOptions(device_rules=rules)
    return spec.check(apply(defaults.config(rootless=rootless), options))["linux"]["resources"]["devices"]


def test_a_rule_allows_devices_that_are_not_there_yet() -> None:
    assert _allowed("c 81:* rmw", "a *:* r")[1:] == [
        {"allow": True, "type": "c", "major": 81, "access": "rmw"},
        {"allow": True, "type": "a", "access": "r"},
    ]


@pytest.mark.parametrize(
    "rule",
    ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 rwmr", " c 1:3 r", "c 1:3 r\n"],
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(InvalidReference, match="is not TYPE MAJOR:MINOR ACCESS"):
        _allowed(rule)


DISK = next((path for path in sorted(Path("/dev").iterdir()) if path.is_block_device()), None)


@pytest.mark.skipif(DISK is None, reason="this host has no disk in /dev")
def test_limits_of_disks() -> None:
    assert DISK is not None
    number = DISK.stat().st_rdev
    disk = {"major": os.major(number), "minor": os.minor(number)}
    options = RunOptions(
        blkio_weight=500,
        blkio_weight_device=(f"{DISK}:10",),
        device_read_bps=(f"{DISK}:1mb", f"{DISK}:2"),
        device_write_iops=(f"{DISK}:30",),
    )
    found = spec.check(apply(defaults.config(), options))["linux"]["resources"]["blockIO"]
    assert found == {
        "weight": 500,
        "weightDevice": [{**disk, "weight": 10}],
        "throttleReadBpsDevice": [{**disk, "rate": 1 << 20}, {**disk, "rate": 2}],
        "throttleWriteIOPSDevice": [{**disk, "rate": 30}],
    }
    assert "blockIO" not in apply(defaults.config(), RunOptions(blkio_weight=0))["linux"]["resources"]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("blkio_weight_device", f"{DISK}:9"),
        ("blkio_weight_device", f"{DISK}:x"),
        ("device_read_bps", "/etc/passwd:1"),
        ("device_read_bps", f"{DISK}"),
        ("device_read_bps", f"{DISK}:1q"),
        ("device_write_iops", f"{DISK}:-1"),
        ("device_write_iops", f"{DISK}:1k"),
        ("device_write_bps", "/dev/null:1m"),
        ("device_write_bps", "/dev/not/there:1m"),
    ],
)
def test_limits_of_disks_that_are_wrong(option: str, text: str) -> None:
    with pytest.raises((InvalidReference, RunError), match=option.replace("_", "-")):
        apply(defaults.config(), RunOptions(**{option: (text,)}))
    for weight in (9, 1001):
        with pytest.raises(InvalidReference, match="from 10 to 1000"):
            apply(defaults.config(), RunOptions(blkio_weight=weight))
