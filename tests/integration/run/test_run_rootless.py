"""`ocitool run` as an ordinary user: with delegated ids, and without them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import ordinary
from support.command import Ocitool
from support.peers import require
from support.unpack_images import image
from support.unpack_tars import archive, directory, file, symlink

pytestmark = [pytest.mark.root, pytest.mark.peers]

DELEGATED = f'{ordinary.DELEGATE}shift; exec "$@"'


def run(
    home: Path, *words: str, delegated: bool = True, command: str = "run", inside: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    program = ordinary.command(*inside, sys.executable, "-m", "ocitool", command, *words)
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
    assert [path.name for path in ordinary_home.glob("store.prepared-*/**/*")] == ["layers"]


def test_without_delegated_ids_the_only_user_is_root(ordinary_home: Path, busybox_image: str) -> None:
    assert run(ordinary_home, busybox_image, "id", "-u", delegated=False).stdout == "0\n"
    done = run(ordinary_home, "-u", "alice", busybox_image, "id", delegated=False)
    assert done.returncode == 125
    assert "the user 1234, who is not mapped" in done.stderr
    assert "/etc/subuid" in done.stderr


def test_limits_need_a_cgroup_that_the_user_may_write_to(ordinary_home: Path, busybox_image: str) -> None:
    done = run(ordinary_home, "--memory", "64m", busybox_image, "true", delegated=False)
    if done.returncode == 0:
        pytest.skip("this user has a cgroup of their own here, so limits work")
    assert done.returncode == 125
    assert "cannot be set" in done.stderr
    assert list((ordinary_home / "containers").iterdir()) == []


@pytest.fixture
def owned_image(ordinary_home: Path) -> str:
    """An image with a file of somebody's, and a directory that hides what a layer below has in it."""
    busybox = file(b"bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    names = [symlink(b"bin/" + name, b"busybox") for name in (b"ls", b"stat")]
    below = archive(
        *(directory(name) for name in (b"bin", b"dev", b"proc", b"sys", b"home")), busybox, *names,
        file(b"home/file", b"", uid=1000, gid=50), directory(b"replaced"), file(b"replaced/old"),
    )  # fmt: skip
    above = archive(directory(b"replaced"), file(b"replaced/.wh..wh..opq"), file(b"replaced/new"))
    location = image(below, above).to_layout(ordinary_home / "layout")
    subprocess.run(["chmod", "-R", "a+rX", ordinary_home / "layout"], check=True)
    return location


ALONE = ("unshare", "--map-root-user")
WITH_OTHERS = (*ALONE, "--map-auto")


@pytest.mark.parametrize("inside", [ALONE, WITH_OTHERS], ids=["alone", "with others"])
def test_root_of_a_user_namespace_runs_images(
    ordinary_home: Path, owned_image: str, inside: Sequence[str]
) -> None:
    require("newuidmap")
    script = ["stat", "-c", "%u:%g %n", "/home/file", "/dev/null"]
    done = run(ordinary_home, owned_image, *script, inside=inside)
    owner = "1000:50" if inside == WITH_OTHERS else "0:0"
    assert done.stdout.splitlines()[0] == f"{owner} /home/file", done.stderr
    again = run(ordinary_home, owned_image, "ls", "/replaced", inside=inside)
    assert (again.stdout, again.stderr) == ("new\n", "")


def test_root_of_a_user_namespace_that_has_nobody_else_records_owners(
    ordinary_home: Path, owned_image: str
) -> None:
    bundle = str(ordinary_home / "bundle")
    done = run(ordinary_home, owned_image, bundle, command="unpack", inside=ALONE)
    assert done.returncode == 0, done.stderr
    assert "owners not set, but recorded beside the files: 1" in done.stderr
    done = run(ordinary_home, bundle, "ls", "/replaced", inside=ALONE)
    assert (done.stdout, done.stderr) == ("new\n", "")
