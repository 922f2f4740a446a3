"""cgroups: where a container's is, and what its files get, on both versions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.run_kernel import RecordingKernel

from ocitool.errors import InvalidContent, RunError, Unsupported
from ocitool.run import cgroup_v1, cgroup_v2, cgroups, device_program, newcgroup

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
OWN = "4:memory:/docker/x/y\n3:cpu,cpuacct:/a\n2:name=systemd:/\n1:hugetlb:/not-mounted\n0::/u\n"


def test_every_hierarchy_is_found_in_a_hybrid_layout() -> None:
    found = {",".join(h.controllers): (h.mount_point, h.own) for h in newcgroup.hierarchies(HYBRID, OWN)}
    assert found == {
        "cpu,cpuacct": ("/sys/fs/cgroup/cpu,cpuacct", "/a"),
        "memory": ("/sys/fs/cgroup/memory", "/y"),
        "name=systemd": ("/sys/fs/cgroup/systemd", "/"),
        "": ("/sys/fs/cgroup/uni fied", "/u"),
    }


def test_a_host_of_version_2_alone(tmp_path: Path) -> None:
    (tmp_path / "user.slice/session.scope").mkdir(parents=True)
    line = f"30 23 0:26 / {tmp_path} rw,nosuid - cgroup2 cgroup2 rw\n"
    (found,) = newcgroup.hierarchies(line, "0::/user.slice/session.scope\n")
    assert found.unified
    # Beside our own cgroup, which could give its controllers to none below it.
    assert newcgroup.place(found, None, "x") == f"{tmp_path}/user.slice/ocitool-x"
    assert newcgroup.place(found, "/absolute/one", "x") == f"{tmp_path}/absolute/one"
    assert newcgroup.place(found, "relative", "x") == f"{tmp_path}/user.slice/relative"
    # In the topmost one, and where nothing may be made above our own, that is the place.
    assert newcgroup.place(newcgroup.Hierarchy([], str(tmp_path), "/"), None, "x") == f"{tmp_path}/ocitool-x"
    assert (
        newcgroup.place(newcgroup.Hierarchy([], "/nonexistent", "/a"), None, "x")
        == "/nonexistent/a/ocitool-x"
    )


@pytest.mark.parametrize("path", ["..", "/a/../../b", "a/.."])
def test_rn_16_a_path_that_climbs_is_refused(path: str) -> None:
    with pytest.raises(InvalidContent):
        newcgroup.place(newcgroup.Hierarchy([], "/sys/fs/cgroup", "/"), path, "x")
    with pytest.raises(InvalidContent, match="leads out"):
        cgroups.Cgroup({"": "/sys/fs/cgroup/x"}, []).below([path])


def test_a_process_is_not_put_where_there_is_no_cgroup() -> None:
    with pytest.raises(InvalidContent, match="no cgroup of this controller"):
        cgroups.Cgroup({"": "/sys/fs/cgroup/x"}, []).below(["cpu:below"])


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
    "cpu": {"shares": 1024, "quota": 50, "period": 100, "cpus": "0-1", "mems": "0", "idle": 1, "burst": 9},
    "pids": {"limit": 0},
    "blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 8}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
    "rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 5}},
}


def test_version_1_gets_every_setting_in_an_order_that_it_takes() -> None:
    network = {"classID": 5, "priorities": [{"name": "eth0", "priority": 2}]}
    assert cgroup_v1.settings({**RESOURCES, "network": network}) == [
        ("memory", "memory.limit_in_bytes", "1000"),
        ("memory", "memory.memsw.limit_in_bytes", "3000"),
        ("memory", "memory.soft_limit_in_bytes", "500"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100"),
        ("cpu", "cpu.cfs_quota_us", "50"),
        ("cpu", "cpu.cfs_burst_us", "9"),
        ("cpu", "cpu.idle", "1"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "0"),
        ("blkio", "blkio.weight", "500"),
        ("blkio", "blkio.weight_device", "8:0 10"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 7"),
        ("blkio", "blkio.throttle.write_iops_device", "8:1 8"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4"),
        ("net_cls", "net_cls.classid", "5"),
        ("net_prio", "net_prio.ifpriomap", "eth0 2"),
        ("rdma", "rdma.max", "mlx hca_handle=3 hca_object=5"),
    ]  # fmt: skip


def test_limits_that_are_lifted_are_lifted_from_the_outside() -> None:
    found = cgroup_v1.settings({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}})
    assert [value[1:] for value in found] == [
        ("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1"), ("pids.max", "max"),
    ]  # fmt: skip


def test_version_2_gets_the_same_converted() -> None:
    assert cgroup_v2.settings({**RESOURCES, "unified": {"memory.high": "900"}}) == [
        ("memory.swap.max", "2000"),
        ("memory.max", "1000"),
        ("memory.low", "500"),
        ("cpu.idle", "1"),
        ("cpu.weight", "39"),
        ("cpu.max", "50 100"),
        ("cpu.max.burst", "9"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "0"),
        ("io.weight", "default 4950"),
        ("io.weight", "8:0 1"),
        ("io.max", "8:0 rbps=7"),
        ("io.max", "8:1 wiops=8"),
        ("hugetlb.2MB.max", "4"),
        ("rdma.max", "mlx hca_handle=3 hca_object=5"),
        ("memory.high", "900"),
    ]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (1, 1), (10**9, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert cgroup_v2.weight_of_shares(shares) == weight


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        ({"memory": {"swap": 5}}, InvalidContent),
        ({"memory": {"limit": 10, "swap": 5}}, InvalidContent),
        ({"memory": {"swappiness": 5}}, Unsupported),
        ({"memory": {"disableOOMKiller": True}}, Unsupported),
        ({"cpu": {"realtimeRuntime": 5}}, Unsupported),
        ({"network": {"classID": 1}}, Unsupported),
        ({"unified": {"../x": "1"}}, InvalidContent),
        ({"unified": {"..": "1"}}, InvalidContent),
    ],
)
def test_what_version_2_cannot_mean_is_an_error(resources: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        cgroup_v2.settings(resources)


def test_device_rules_keep_their_order_and_the_defaults_come_after_the_last_denial_of_all() -> None:
    rules = [
        {"allow": True, "type": "c", "major": 9, "minor": 9, "access": "r"},
        {"allow": False, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": True, "type": "a", "major": 10, "access": "rw"},
    ]
    found = cgroup_v1.device_settings(rules)
    assert found[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 9:9 r") not in found
    assert found[-3:] == [
        ("devices.deny", "c 1:5 rwm"),
        ("devices.allow", "b 10:* rw"),
        ("devices.allow", "c 10:* rw"),
    ]
    assert ("devices.allow", "c 1:3 rwm") in found[:-3]


def _ask(program: bytes, kind: int, access: int, major: int, minor: int) -> int:  # noqa: C901 - one case for each instruction
    """The device program, run by an interpreter of the instructions that it uses."""
    registers = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 0: 0}
    context = {0: kind | access << 16, 4: major, 8: minor}
    at = 0
    while True:
        code, pair, low, high = program[at], program[at + 1], program[at + 2], program[at + 3]
        offset, value = low | high << 8, int.from_bytes(program[at + 4 : at + 8], "little")
        target, source = pair & 15, pair >> 4
        at += 8
        match code:
            case 0x61:
                registers[target] = context[offset]
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = value
            case 0x54:
                registers[target] &= value
            case 0x74:
                registers[target] >>= value
            case 0x15:
                at += 8 * offset * (registers[target] == value)
            case 0x55:
                at += 8 * offset * (registers[target] != value)
            case 0x5D:
                at += 8 * offset * (registers[target] != registers[source])
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(hex(code))


@pytest.mark.parametrize(
    ("kind", "access", "device", "allowed"),
    [
        (2, 2, (1, 3), True),  # read of /dev/null
        (2, 6, (1, 3), True),
        (2, 2, (1, 5), False),  # taken away again
        (2, 1, (7, 7), True),  # mknod of anything
        (2, 2, (7, 7), False),
        (1, 4, (8, 0), True),  # write of what is allowed
        (1, 6, (8, 0), False),  # reading it as well is not
        (2, 4, (136, 5), True),
    ],
)
def test_the_device_program_decides_as_the_rules_do(
    kind: int, access: int, device: tuple[int, int], *, allowed: bool
) -> None:
    program = device_program.program(
        [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "w"},
            {"allow": False, "type": "c", "major": 1, "minor": 5, "access": "r"},
        ]
    )
    assert _ask(program, kind, access, *device) == allowed


def test_everything_can_be_allowed() -> None:
    program = device_program.program([{"allow": True, "access": "rwm"}])
    assert _ask(program, 1, 7, 99, 99) == 1


def _tree(base: Path, files: dict[str, str]) -> None:
    base.mkdir(parents=True)
    for name, text in files.items():
        (base / name).write_text(text)


def test_controllers_are_enabled_from_the_top_in_a_simulated_tree(tmp_path: Path) -> None:
    for path in (tmp_path / "cg", tmp_path / "cg/parent"):
        files = {"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "cpu\n"}
        _tree(path, {**files, "cgroup.procs": ""})
    (tmp_path / "cg/parent/leaf").mkdir()
    cgroup_v2.enable_controllers(str(tmp_path / "cg/parent/leaf"))
    # A real file takes each write as a command; here the last one stays.
    for path in (tmp_path / "cg", tmp_path / "cg/parent"):
        assert (path / "cgroup.subtree_control").read_text().startswith("+pids")


def test_a_cgroup_that_holds_processes_keeps_its_controllers(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    files = {"cgroup.controllers": "cpu pids", "cgroup.subtree_control": "", "cgroup.procs": "7\n"}
    _tree(parent, {**files, "cgroup.type": "domain\n"})
    cgroup_v2.enable_controllers(f"{parent}/leaf")
    assert (parent / "cgroup.subtree_control").read_text() == ""
    # But not the topmost one of the host.
    (parent / "cgroup.type").unlink()
    cgroup_v2.enable_controllers(f"{parent}/leaf")
    assert (parent / "cgroup.subtree_control").read_text() != ""


def test_settings_go_to_the_files_of_a_simulated_tree(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    _tree(leaf, {"memory.max": "", "memory.swap.max": "", "pids.max": ""})
    cgroup = cgroups.Cgroup({"": str(leaf)}, [])
    assert cgroup.pure_v2
    resources = {"memory": {"limit": 10, "swap": 30}, "pids": {"limit": 7}}
    newcgroup.apply(cgroup, RecordingKernel(), resources, devices=False)
    assert [(leaf / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == [
        "10",
        "20",
        "7",
    ]
    with pytest.raises(RunError, match=r"cpu\.max cannot be set, as there is no cpu controller here"):
        newcgroup.apply(cgroup, RecordingKernel(), {"cpu": {"quota": 5}}, devices=False)


def test_rules_for_devices_are_written_in_their_order_whichever_file_they_go_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "both")
    for name in ("devices.allow", "devices.deny"):
        (tmp_path / name).symlink_to("both")
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 7, "access": "w"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
    ]
    reading = os.open(tmp_path / "both", os.O_RDWR)
    try:
        cgroup = cgroups.Cgroup({"devices": str(tmp_path)}, [])
        newcgroup.apply(cgroup, RecordingKernel(), {"devices": rules}, devices=True)
        written = os.read(reading, 4096).decode()
    finally:
        os.close(reading)
    assert written == "".join(rule for _, rule in cgroup_v1.device_settings(rules))
    assert written.endswith("c 10:* rwc 10:7 wb 8:0 r")


@pytest.mark.parametrize(
    ("processes", "words"), [("", "passes no cpu"), ("77\n", "it holds processes itself")]
)
def test_a_controller_that_is_not_passed_on_is_named_with_the_cgroup_that_keeps_it(
    tmp_path: Path, processes: str, words: str
) -> None:
    leaf = tmp_path / "keeps/leaf"
    files = {"cgroup.controllers": "cpu memory\n", "cgroup.procs": processes, "cgroup.type": "domain\n"}
    _tree(leaf.parent, files)
    _tree(leaf, {"cgroup.controllers": "memory\n"})
    cgroup = cgroups.Cgroup({"": str(leaf)}, [])
    with pytest.raises(RunError, match=rf"cpu\.max cannot be set, as cgroup {leaf.parent} .*{words}"):
        newcgroup.apply(cgroup, RecordingKernel(), {"cpu": {"quota": 5}}, devices=False)


def test_a_kernel_that_counts_no_swap_limits_none(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    _tree(leaf, {"memory.max": ""})
    cgroup = cgroups.Cgroup({"": str(leaf)}, [])
    newcgroup.apply(cgroup, RecordingKernel(), {"memory": {"limit": 10, "swap": -1}}, devices=False)
    assert (leaf / "memory.max").read_text() == "10"


def test_what_a_host_has_no_controller_for_is_an_error(tmp_path: Path) -> None:
    cgroup = cgroups.Cgroup({"pids": str(tmp_path), "": str(tmp_path)}, [])
    with pytest.raises(RunError, match="no memory controller"):
        newcgroup.apply(cgroup, RecordingKernel(), {"memory": {"limit": 5}}, devices=False)
    with pytest.raises(Unsupported):
        newcgroup.apply(cgroup, RecordingKernel(), {"unified": {"memory.high": "5"}}, devices=False)


def test_a_limit_below_the_usage_is_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    _tree(leaf, {"memory.max": "", "memory.current": "500\n"})
    cgroup = cgroups.Cgroup({"": str(leaf)}, [])
    with pytest.raises(RunError, match="lower than the current usage"):
        newcgroup.apply(
            cgroup, RecordingKernel(), {"memory": {"limit": 400, "checkBeforeUpdate": True}}, devices=False
        )
    newcgroup.apply(
        cgroup, RecordingKernel(), {"memory": {"limit": 600, "checkBeforeUpdate": True}}, devices=False
    )
    assert (leaf / "memory.max").read_text() == "600"


def test_a_cgroup_that_is_removed_while_it_is_killed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf = tmp_path / "leaf"
    _tree(leaf, {"cgroup.kill": "", "cgroup.procs": ""})
    cgroup = cgroups.Cgroup({"": str(leaf)}, [str(leaf)], taken=True)
    write = cgroups.write_setting

    def write_too_late(path: str, value: str) -> None:
        shutil.rmtree(leaf)
        write(path, value)

    monkeypatch.setattr(cgroups, "write_setting", write_too_late)
    cgroup.kill()
    assert not leaf.exists()


def test_a_cgroup_that_cannot_be_killed_is_an_error(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    _tree(leaf, {"cgroup.procs": ""})
    (leaf / "cgroup.kill").mkdir()
    cgroup = cgroups.Cgroup({"": str(leaf)}, [str(leaf)], taken=True)
    with pytest.raises(RunError, match=r"cgroup\.kill = 1: Is a directory"):
        cgroup.kill()
