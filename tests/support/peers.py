"""The other tools that tests compare with."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn


# crun refuses a host with both versions of cgroups, so it gets a view of the mounts without the second.
WITHOUT_HYBRID = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"',
    "sh",
]


def require(*tools: str) -> None:
    """Skip the test unless these programs are installed.

    Where `make test` installs them itself (root and apt), a missing one is a failure.
    """
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        not_installed(*missing)


def not_installed(*missing: str) -> NoReturn:
    """Skip the test for want of these, or fail it, as `require` says."""
    reason = f"not installed: {', '.join(missing)}"
    if os.geteuid() == 0 and shutil.which("apt-get") and not os.environ.get("OCITOOL_NO_APT"):
        pytest.fail(f"{reason}; scripts/install-test-tools installs it")
    pytest.skip(reason)


def require_root() -> None:
    """Skip the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def call(*command: str | Path, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed on stdout; a failure shows what it said."""
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{command} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
