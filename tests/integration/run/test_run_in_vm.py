"""The runtime on another kernel, with cgroup version 2 alone and below systemd, in a virtual machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.peers import require, require_root

PROJECT = Path(__file__).parents[3]
VIRTUAL = os.access("/dev/kvm", os.W_OK) and re.search(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text())
# conftest.py takes our variables out of the environment later.
ASKED = os.environ.get("OCITOOL_TEST_VM")


V2 = ["tests/integration/run/test_run_cgroup_v2.py", "tests/integration/run/test_run_lifecycle.py"]
CHOSEN = ["-k", "cgroup_v2 or limits or device or layers or update"]
OPTIONS = ["tests/integration/run/test_run_docker_options.py"]
OF_CGROUPS = ["-k", "sees_cgroups or cgroup_is_made or files_of_the_cgroup or devices or limits_of_a_process"]


@pytest.mark.root
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    not (VIRTUAL or ASKED),
    reason="without KVM a virtual machine takes minutes: OCITOOL_TEST_VM=1 asks for it",
)
@pytest.mark.parametrize(
    ("cgroups", "tests"),
    [
        ("v2", [*V2, *CHOSEN]),
        ("v2", [*OPTIONS, *OF_CGROUPS]),
        ("systemd", ["tests/integration/run/test_run_real_systemd.py"]),
    ],
    ids=["version 2 alone", "options on version 2", "systemd"],
)
def test_what_other_hosts_have_is_right_in_a_machine_like_them(cgroups: str, tests: list[str]) -> None:
    require_root()
    require("qemu-system-x86_64", "busybox", "bsdtar", "apt-get")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        [PROJECT / "scripts" / "test-in-vm", "--cgroups", cgroups, *command],
        capture_output=True, text=True, check=False, timeout=1100, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
