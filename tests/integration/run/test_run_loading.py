"""What the commands of the runtime really load: a module costs a third of a millisecond."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.loading import SLOW, loaded
from support.peers import require
from support.run_bundles import OURS, VERSION_2_ALONE, Bundle, Containers, finished

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
    found = {"run": _loaded(containers, "run", "--detach", "--bundle", str(bundle.path), f"{OURS}-run")}
    found["create"] = _loaded(containers, "create", "--bundle", str(bundle.path), f"{OURS}-three")
    found["start"] = _loaded(containers, "start", f"{OURS}-three")
    found["exec"] = _loaded(containers, "exec", f"{OURS}-three", "true")
    found["delete"] = _loaded(containers, "delete", "--force", f"{OURS}-three")
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
    assert containers.call("create", "--bundle", str(bundle.path), f"{OURS}-short").returncode == 0
    found = {"state": _loaded(containers, "state", f"{OURS}-short")}
    found["start"] = _loaded(containers, "start", f"{OURS}-short")
    containers.wait_for(f"{OURS}-short", "stopped")
    found["delete"] = _loaded(containers, "delete", f"{OURS}-short")
    assert {command for command, names in found.items() if names & {"_ctypes", "ocitool.run.kernel"}} == set()


@pytest.mark.parametrize("userns", [False, True])
def test_a_further_process_is_cloned_once_unless_a_user_namespace_has_to_be_entered_first(
    containers: Containers, bundle: Bundle, workplace: Path, *, userns: bool
) -> None:
    require("strace")
    if userns:
        bundle.map_single_user(0)
    containers.started(bundle.shell("sleep 60"), f"{OURS}-clones")
    trace = workplace / "trace"
    tracer = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=clone,clone3"]
    script = "readlink /proc/self/ns/pid; readlink /proc/1/ns/pid"
    done = finished([*tracer, *containers.command("exec", f"{OURS}-clones", "sh", "-c", script)])
    assert done.returncode == 0, done.stderr
    # The shell's own two are not ours.
    ours = [line for line in trace.read_text().splitlines() if "(" in line and "CHILD_SETTID" not in line]
    assert len(ours) == (2 if userns else 1), ours
    assert len(set(done.stdout.splitlines())) == 1
