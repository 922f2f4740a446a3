"""What only a host with cgroup version 2 alone can show, such as the one of scripts/test-in-vm."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run_bundles import ORDINARY, OURS, VERSION_2_ALONE, Bundle, Containers, finished
from support.waiting import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not VERSION_2_ALONE, reason="this host has cgroup version 1: scripts/test-in-vm runs these tests"
    ),
]
TOP = Path("/sys/fs/cgroup")


class Session:
    """A cgroup with a process in it, as a login has one, from which the runtime is called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)

    def call(
        self, containers: Containers, *words: str, ordinary: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line from inside."""
        command = ["sh", "-c", f'echo $$ > {self.directory}/cgroup.procs; exec "$@"', "sh"]
        if ordinary:
            command += ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
        return finished([*command, *containers.command(*words, ordinary=ordinary)])


@pytest.fixture
def session() -> Iterator[Session]:
    top = TOP / f"ocitool-{OURS}-slice"
    found = Session(top / "session")
    for parent in (TOP, top):
        (parent / "cgroup.subtree_control").write_text("+memory +pids")
    yield found
    for path, _, _ in os.walk(top, topdown=False):
        _remove(Path(path))


def _remove(directory: Path) -> None:
    """Remove a cgroup, whose last process may be ending still."""
    for _ in range(100):
        try:
            directory.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    directory.rmdir()


def _cgroup_of(pid: int) -> Path:
    return TOP / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def test_every_kind_of_limit_reaches_its_file(containers: Containers, bundle: Bundle) -> None:
    disk = {"major": 7, "minor": 0}
    bundle.config["linux"]["resources"].update(
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 16 << 20},
            "cpu": {"shares": 2048, "quota": 30000, "period": 60000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 44},
            "blockIO": {"throttleReadBpsDevice": [{**disk, "rate": 1 << 20}],
                        "throttleWriteIOPSDevice": [{**disk, "rate": 50}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
            "unified": {"memory.high": str(48 << 20), "cgroup.max.depth": "3"},
        }
    )  # fmt: skip
    directory = _cgroup_of(containers.started(bundle.shell("sleep 60"), f"{OURS}-limits"))
    expected = {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(32 << 20),
        "memory.low": str(16 << 20),
        "memory.high": str(48 << 20),
        "cpu.weight": "79",
        "cpu.max": "30000 60000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "44",
        "io.max": "7:0 rbps=1048576 wbps=max riops=max wiops=50",
        "hugetlb.2MB.max": str(4 << 20),
        "cgroup.max.depth": "3",
    }
    assert {name: (directory / name).read_text().strip() for name in expected} == expected


def test_a_container_beside_a_session_has_limits_although_the_session_holds_processes(
    containers: Containers, bundle: Bundle, session: Session
) -> None:
    bundle.config["linux"]["resources"]["memory"] = {"limit": 33 << 20}
    bundle.shell("cat /sys/fs/cgroup/memory.max")
    done = session.call(containers, "run", "--bundle", str(bundle.path), f"{OURS}-beside")
    assert (done.returncode, done.stdout) == (0, f"{33 << 20}\n"), done.stderr


def test_a_cgroup_that_holds_processes_is_named_where_it_keeps_its_controllers(
    containers: Containers, bundle: Bundle, session: Session
) -> None:
    bundle.config["linux"]["resources"]["memory"] = {"limit": 33 << 20}
    bundle.config["linux"]["cgroupsPath"] = f"/ocitool-{OURS}-slice/session/ocitool-{OURS}-below"
    bundle.shell("true")
    done = session.call(containers, "run", "--bundle", str(bundle.path), f"{OURS}-below")
    assert done.returncode == 125
    assert f"cgroup {session.directory} passes no memory controller on: it holds processes" in done.stderr
    assert not (session.directory / f"ocitool-{OURS}-below").exists()


@pytest.mark.parametrize("fstype", ["cgroup", "cgroup2"])
def test_a_container_in_the_hosts_cgroup_namespace_leaves_the_options_of_the_hosts_mount_alone(
    containers: Containers, bundle: Bundle, fstype: str
) -> None:
    """A new mount from that namespace would take "nsdelegate" from the host."""
    before = Path("/proc/self/mounts").read_text()
    assert "nsdelegate,memory_recursiveprot" in before
    bundle.config["linux"]["namespaces"].remove({"type": "cgroup"})
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    (mount,) = (each for each in bundle.config["mounts"] if each["destination"] == "/sys/fs/cgroup")
    mount["type"] = fstype
    script = "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max; mkdir /sys/fs/cgroup/x"
    done = containers.run(bundle.shell(script))
    assert done.stdout == f"{64 << 20}\n"
    assert "Read-only file system" in done.stderr
    assert Path("/proc/self/mounts").read_text() == before


@pytest.mark.parametrize("own", [True, False], ids=["own namespace", "host's namespace"])
def test_exec_enters_a_cgroup_that_has_controllers(
    containers: Containers, bundle: Bundle, *, own: bool
) -> None:
    """Also where namespaces are boundaries that nobody crosses from inside, as systemd mounts version 2."""
    assert "nsdelegate" in Path("/proc/self/mounts").read_text()
    assert {"type": "cgroup"} in bundle.config["linux"]["namespaces"]
    if not own:
        bundle.config["linux"]["namespaces"].remove({"type": "cgroup"})
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-exec")
    assert containers.call("exec", "--detach", f"{OURS}-exec", "sleep", "50").returncode == 0
    listed = [int(line) for line in (_cgroup_of(pid) / "cgroup.procs").read_text().split()]
    assert pid in listed
    assert len(listed) == 2
    assert json.loads(containers.call("ps", "--format", "json", f"{OURS}-exec").stdout) == sorted(listed)


def test_the_containers_own_cgroup_is_all_that_it_sees(containers: Containers, bundle: Bundle) -> None:
    shown = containers.output(
        bundle, "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/ocitool*; mkdir /sys/fs/cgroup/x; true"
    )
    assert shown == "0::/\n"


def _with_user_namespace(bundle: Bundle) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["linux"].update({"uidMappings": mapping, "gidMappings": mapping})


def _cgroup_mount(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = next(
        mount for mount in bundle.config["mounts"] if mount["destination"] == "/sys/fs/cgroup"
    )
    return found


def test_a_container_that_may_divide_its_cgroup_owns_it_and_not_its_limits(
    containers: Containers, bundle: Bundle
) -> None:
    _with_user_namespace(bundle)
    _cgroup_mount(bundle)["options"] = ["nosuid", "noexec", "nodev", "relatime", "rw"]
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    script = """cd /sys/fs/cgroup; mkdir inner && echo 1 > inner/cgroup.procs
        cat /proc/self/cgroup | wc -l; cat inner/cgroup.procs
        echo max > memory.max || echo kept; sleep 60"""
    pid = containers.started(bundle.shell(script), f"{OURS}-owner")
    directory = _cgroup_of(pid)
    directory = directory if directory.name != "inner" else directory.parent
    until((directory / "inner/cgroup.procs").exists)
    assert directory.stat().st_uid == 100000
    assert (directory / "cgroup.subtree_control").stat().st_uid == 100000
    assert (directory / "memory.max").stat().st_uid == 0
    assert (directory / "memory.max").read_text() == f"{64 << 20}\n"
    assert containers.call("delete", "--force", f"{OURS}-owner").returncode == 0
    assert not directory.exists()


def test_a_read_only_cgroup_stays_the_runtimes(containers: Containers, bundle: Bundle) -> None:
    _with_user_namespace(bundle)
    assert "ro" in _cgroup_mount(bundle)["options"]
    directory = _cgroup_of(containers.started(bundle.shell("sleep 60"), f"{OURS}-closed"))
    assert directory.stat().st_uid == 0


def test_an_ordinary_user_has_limits_where_a_cgroup_is_delegated(
    containers: Containers, ordinary_bundle: Bundle, session: Session
) -> None:
    delegated = session.directory.parent
    for path in (delegated, session.directory):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, ORDINARY, ORDINARY)
    ordinary_bundle.config["linux"]["resources"] = {"memory": {"limit": 40 << 20}, "pids": {"limit": 30}}
    ordinary_bundle.shell("cat /proc/self/cgroup; sleep 60")
    base = ["--bundle", str(ordinary_bundle.path), f"{OURS}-delegated"]
    for words in (("create", *base), ("start", f"{OURS}-delegated")):
        done = session.call(containers, *words, ordinary=True)
        assert done.returncode == 0, done.stderr
    directory = _cgroup_of(containers.state(f"{OURS}-delegated", ordinary=True)["pid"])
    assert directory == delegated / f"ocitool-{OURS}-delegated"
    assert (directory / "memory.max").read_text() == f"{40 << 20}\n"
    assert (directory / "pids.max").read_text() == "30\n"
    done = session.call(containers, "exec", f"{OURS}-delegated", "sh", "-c", "exit 3", ordinary=True)
    assert done.returncode == 3, done.stderr
    assert containers.call("pause", f"{OURS}-delegated", ordinary=True).returncode == 0
    assert containers.call("resume", f"{OURS}-delegated", ordinary=True).returncode == 0
    assert containers.call("delete", "--force", f"{OURS}-delegated", ordinary=True).returncode == 0
    assert not directory.exists()


@pytest.mark.parametrize("own", [True, False], ids=["namespace of its own", "host's namespace"])
def test_an_ordinary_user_without_a_delegated_cgroup_sees_cgroups_and_changes_none(
    containers: Containers, ordinary_bundle: Bundle, session: Session, *, own: bool
) -> None:
    config = ordinary_bundle.config
    spaces = [space for space in config["linux"]["namespaces"] if space["type"] != "cgroup"]
    config["linux"]["namespaces"] = spaces + [{"type": "cgroup"}] * own
    cgroup = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    others = [mount for mount in config["mounts"] if mount["destination"] != "/sys/fs/cgroup"]
    config["mounts"] = [*others, cgroup]
    ordinary_bundle.shell(
        "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cut -d: -f3 /proc/self/cgroup;"
        " grep -c . cgroup.procs; mkdir x 2>&1"
    )
    done = session.call(
        containers, "run", "--bundle", str(ordinary_bundle.path), f"{OURS}-seen", ordinary=True
    )
    place, processes, refused = done.stdout.splitlines()
    assert place == ("/" if own else f"/{session.directory.relative_to(TOP)}")
    assert int(processes) >= 1
    assert "Read-only file system" in refused


def test_a_container_inside_of_a_container_is_limited(
    containers: Containers, bundle: Bundle, session: Session
) -> None:
    """The runtime's cgroup is the root of its namespace, as it is where an engine starts us inside."""
    bundle.config["linux"]["resources"]["pids"] = {"limit": 30}
    bundle.config["linux"]["cgroupsPath"] = f"/ocitool-{OURS}-nested"
    bundle.shell("cat /sys/fs/cgroup/pids.max")
    run = " ".join(containers.command("run", "--bundle", str(bundle.path), f"{OURS}-nested"))
    mount = "umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    enter = f"echo $$ > {session.directory}/cgroup.procs && exec unshare --cgroup --mount"
    # Who has a cgroup to themselves moves aside, as engines in containers do; then limits can be given.
    aside = "mkdir /sys/fs/cgroup/aside && echo $$ > /sys/fs/cgroup/aside/cgroup.procs"
    outcomes = [
        finished(["sh", "-c", f"{enter} sh -c '{mount} && {prepare} && {run}'"])
        for prepare in ("true", aside)
    ]
    assert outcomes[0].returncode == 125
    assert "it holds processes itself" in outcomes[0].stderr
    assert (outcomes[1].returncode, outcomes[1].stdout) == (0, "30\n"), outcomes[1].stderr


def test_a_memory_limit_that_is_reached_ends_the_program_alone(
    containers: Containers, bundle: Bundle
) -> None:
    bundle.config["linux"]["resources"]["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
    bundle.shell("head -c 64m /dev/zero | tail > /dev/null; echo $?; echo alive")
    done = containers.run(bundle)
    assert done.stdout == "137\nalive\n"


def test_a_limit_below_the_usage_is_refused_on_request(containers: Containers, bundle: Bundle) -> None:
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    pid = containers.started(bundle.shell("sleep 60"), f"{OURS}-usage")
    resources = bundle.path / "resources.json"
    resources.write_text(json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}))
    done = containers.call("update", "--resources", str(resources), f"{OURS}-usage")
    assert done.returncode == 125
    assert "lower than the current usage" in done.stderr
    assert (_cgroup_of(pid) / "memory.max").read_text() == f"{64 << 20}\n"
