"""`--systemd-cgroup` where systemd is the first process, as below `scripts/test-in-vm --cgroups systemd`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from support.run_bundles import Bundle, Containers

BUS = Path("/run/dbus/system_bus_socket")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not (Path("/run/systemd/system").is_dir() and BUS.exists()),
        reason="systemd does not run here: scripts/test-in-vm --cgroups systemd runs these tests",
    ),
]
SCOPE = "made-one.scope"


def shown(*properties: str) -> dict[str, str]:
    command = ["systemctl", "show", SCOPE, *(f"--property={name}" for name in properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


@pytest.fixture
def scoped(bundle: Bundle) -> Bundle:
    linux = bundle.config["linux"]
    linux["cgroupsPath"] = "ocitooltest.slice:made:one"
    assert {"type": "cgroup"} in linux["namespaces"]
    linux["resources"].update(
        {"memory": {"limit": 64 << 20}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 50}}
    )
    return bundle


def test_systemd_has_a_scope_with_the_limits_from_create_to_delete(
    containers: Containers, scoped: Bundle
) -> None:
    words = ("--systemd-cgroup", "create", "--bundle", str(scoped.shell("sleep 60").path), "test-scope")
    done = containers.call(*words, timeout=120)
    assert done.returncode == 0, done.stderr
    assert shown("ActiveState", "Slice", "Delegate", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec") == {
        "ActiveState": "active",
        "Slice": "ocitooltest.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
        "TasksMax": "50",
        "CPUQuotaPerSecUSec": "500ms",
    }
    assert containers.call("start", "test-scope").returncode == 0
    assert containers.call("update", "--pids-limit", "70", "test-scope").returncode == 0
    assert shown("TasksMax") == {"TasksMax": "70"}
    inside = containers.call("exec", "test-scope", "cat", "/proc/self/cgroup")
    assert (inside.stdout, inside.stderr) == ("0::/\n", "")
    (pid,) = json.loads(containers.call("ps", "--format", "json", "test-scope").stdout)
    assert f"/ocitooltest.slice/{SCOPE}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert containers.call("pause", "test-scope").returncode == 0
    assert containers.state("test-scope")["status"] == "paused"
    assert containers.call("resume", "test-scope").returncode == 0
    assert containers.call("delete", "--force", "test-scope").returncode == 0
    assert shown("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}


def test_whoever_stops_the_scope_stops_the_container(containers: Containers, scoped: Bundle) -> None:
    script = "trap 'exit 7' TERM; touch /ready; while :; do sleep 1; done"
    words = ("--systemd-cgroup", "run", "--bundle", str(scoped.shell(script).path), "test-scope")
    run = subprocess.Popen(containers.command(*words))
    while not (scoped.rootfs / "ready").exists():
        assert run.poll() is None
        time.sleep(0.1)
    subprocess.run(["systemctl", "stop", SCOPE], check=True)
    assert run.wait(60) == 7
    assert shown("LoadState") == {"LoadState": "not-found"}
