"""What the commands of the runtime really load: a module costs a third of a millisecond."""

from __future__ import annotations

import pytest
from support.loading import SLOW, loaded
from support.run_bundles import VERSION_2_ALONE, Bundle, Containers, finished

pytestmark = pytest.mark.root

# Modules of ours; a command that needs more has to say here what for.
DEVICES = 2 if VERSION_2_ALONE else 0  # version 2 has a program decide about them
BUDGET = {"run": 30 + DEVICES, "create": 28 + DEVICES, "start": 8, "exec": 20, "delete": 10}
# What sets up a container, and is nothing to a further process in it.
FOR_NEW_CONTAINERS = {
    "creating",
    "furnishing",
    "mounts",
    "rootfs",
    "newcgroup",
    "cgroup_v1",
    "cgroup_v2",
    "seccomp",
}


def _loaded(containers: Containers, *words: str) -> set[str]:
    """The modules that a command loads; it must succeed."""
    python, *rest = containers.command(*words)
    done = finished([python, "-X", "importtime", *rest])
    assert done.returncode == 0, done.stderr
    return loaded(done.stderr)


def test_every_command_keeps_to_its_budget(containers: Containers, bundle: Bundle) -> None:
    bundle.shell("sleep 60")
    found = {"run": _loaded(containers, "run", "--detach", "--bundle", str(bundle.path), "test-run")}
    found["create"] = _loaded(containers, "create", "--bundle", str(bundle.path), "test-three")
    found["start"] = _loaded(containers, "start", "test-three")
    found["exec"] = _loaded(containers, "exec", "test-three", "true")
    found["delete"] = _loaded(containers, "delete", "--force", "test-three")
    ours = {
        command: {name for name in names if name.startswith("ocitool")} for command, names in found.items()
    }
    assert {command: names & SLOW for command, names in found.items() if names & SLOW} == {}
    assert {command: len(names) for command, names in ours.items() if len(names) > BUDGET[command]} == {}
    assert {name for name in ours["exec"] if name.rpartition(".")[2] in FOR_NEW_CONTAINERS} == set()


def test_what_only_reads_and_writes_files_loads_no_way_to_call_the_kernel(
    containers: Containers, bundle: Bundle
) -> None:
    bundle.shell("exit 0")
    assert containers.call("create", "--bundle", str(bundle.path), "test-short").returncode == 0
    found = {"state": _loaded(containers, "state", "test-short")}
    found["start"] = _loaded(containers, "start", "test-short")
    containers.wait_for("test-short", "stopped")
    found["delete"] = _loaded(containers, "delete", "test-short")
    assert {command for command, names in found.items() if names & {"_ctypes", "ocitool.run.kernel"}} == set()
