"""What `delete --force` ends: every process of a container, by whatever holds them together."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run_bundles import OURS, Bundle, Containers
from support.waiting import until

from ocitool.run.state import process_start

pytestmark = pytest.mark.root


def _ended(pid: int) -> bool:
    """Whether a process has ended; who collects it is another matter."""
    found = process_start(pid)
    return found is None or found[0] in "ZX"


def test_a_container_without_a_pid_namespace_ends_with_all_its_processes(
    containers: Containers, bundle: Bundle
) -> None:
    """The first of them takes the others along only where it is the first of a namespace."""
    spaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [entry for entry in spaces if entry["type"] != "pid"]
    pid = containers.started(bundle.shell("sleep 600 & echo $! >/told; wait"), f"{OURS}-family")
    until((bundle.rootfs / "told").exists)
    other = int(until(lambda: (bundle.rootfs / "told").read_text().strip()))
    assert Path(f"/proc/{other}/comm").read_text() == "sleep\n"
    assert containers.call("delete", "--force", f"{OURS}-family").returncode == 0
    assert _ended(pid)
    assert _ended(other)


def test_a_container_without_a_cgroup_ends_with_its_first_process(
    containers: Containers, bundle: Bundle
) -> None:
    name = f"{OURS}-alone"
    words = ("--cgroup-manager", "disabled", "create", "--bundle", str(bundle.shell("sleep 600").path), name)
    assert containers.call(*words).returncode == 0
    assert containers.call("start", name).returncode == 0
    pid = containers.state(name)["pid"]
    assert containers.call("delete", "--force", name).returncode == 0
    assert _ended(pid)
