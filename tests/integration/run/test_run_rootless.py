"""`ocitool run` as an ordinary user: with delegated ids, and without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import ordinary
from support.command import Ocitool
from support.peers import require

pytestmark = [pytest.mark.root, pytest.mark.peers]

DELEGATED = """
for name in subuid subgid; do
    echo nobody:700000:65536 >"$1/$name"
    mount --bind "$1/$name" "/etc/$name"
done
shift
exec "$@"
"""


def run(
    home: Path, *words: str, delegated: bool = True, command: str = "run"
) -> subprocess.CompletedProcess[str]:
    program = ordinary.command(sys.executable, "-m", "ocitool", command, *words)
    outer = ["unshare", "--mount", "--propagation=private", "sh", "-ec", DELEGATED, "sh", str(home)]
    done = subprocess.run(
        [*outer, *program] if delegated else program,
        env=Ocitool(home).environment, cwd=home, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def test_delegated_ids_are_other_users_and_nothing_of_theirs_is_left(
    ordinary_home: Path, busybox_image: str
) -> None:
    """Their files are not the caller's to remove, outside of a user namespace."""
    require("newuidmap")
    change = (
        "mkdir -p /deep/shut; touch /deep/shut/file; chmod 0 /deep/shut; chown -R alice /deep; ls -ld /deep"
    )
    done = run(ordinary_home, busybox_image, "--", "sh", "-c", change)
    assert "alice" in done.stdout, done.stderr
    done = run(ordinary_home, "-u", "alice", busybox_image, "--", "sh", "-c", "id -u; id -g")
    assert done.stdout.split() == ["1234", "1234"]
    assert list((ordinary_home / "containers").iterdir()) == []
    done = run(ordinary_home, "gc", "--delete", command="store")
    assert "unpacked" in done.stdout, done.stderr
    assert [path.name for path in ordinary_home.glob("prepared-*/**/*")] == ["layers"]


def test_without_delegated_ids_the_only_user_is_root(ordinary_home: Path, busybox_image: str) -> None:
    assert run(ordinary_home, busybox_image, "id", "-u", delegated=False).stdout == "0\n"
    done = run(ordinary_home, "-u", "alice", busybox_image, "id", delegated=False)
    assert done.returncode == 16
    assert "the user 1234, who is not mapped" in done.stderr
    assert "/etc/subuid" in done.stderr


def test_limits_need_a_cgroup_that_the_user_may_write_to(ordinary_home: Path, busybox_image: str) -> None:
    done = run(ordinary_home, "--memory", "64m", busybox_image, "true", delegated=False)
    if done.returncode == 0:
        pytest.skip("this user has a cgroup of their own here, so limits work")
    assert done.returncode == 125
    assert "cannot be set" in done.stderr
    assert list((ordinary_home / "containers").iterdir()) == []
