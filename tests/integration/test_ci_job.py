"""The command line as CI systems start it: users without a home, directories that can't be written, pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import ordinary
from support.fixtures import digests, layout
from support.peers import require_root

from ocitool.unpack.removal import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = f"oci:{layout()}:hello:1.0"


@pytest.fixture
def job() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a shell script, in which ocitool is a command, in a directory of a user without a home."""
    require_root()  # to become somebody else
    directory = Path(tempfile.mkdtemp())  # below no directory of pytest's, which only root may enter
    os.chown(directory, ordinary.UNKNOWN, ordinary.UNKNOWN)
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}

    def run(script: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        script = f'ocitool() {{ "{sys.executable}" -m ocitool "$@"; }}\n{script}'
        done = subprocess.run(
            ordinary.command("sh", "-c", script, user=ordinary.UNKNOWN),
            capture_output=True, text=True, env={**environment, **more}, cwd=directory, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "defect" not in done.stderr
        return done

    try:
        yield run
    finally:
        discard(directory)


def test_who_has_no_home_can_do_all_that_needs_none(
    job: Callable[..., subprocess.CompletedProcess[str]], open_registry: str, guarded: str
) -> None:
    job(f"ocitool --quiet copy {IMAGE} {open_registry}/nobody/app:1")
    assert job(f"ocitool digest {open_registry}/nobody/app:1").stdout == digests()["hello:1.0"] + "\n"
    job(f"ocitool --quiet unpack {IMAGE} bundle")
    job(f"ocitool --quiet bundle create app.bundle {open_registry}/nobody/app:1")
    login = f"echo secret-password | ocitool login --username user --password-stdin {guarded}"
    job(f"{login} --authfile auth.json && ocitool --quiet copy --authfile auth.json {IMAGE} {guarded}/app:1")
    script = f"ocitool --quiet pull {open_registry}/nobody/app:1 && ocitool run {open_registry}/nobody/app:1"
    assert "Hello" in job(script, OCITOOL_STORE="store").stdout


def test_a_home_that_the_user_may_not_enter_is_none(
    job: Callable[..., subprocess.CompletedProcess[str]], open_registry: str
) -> None:
    image = f"{open_registry}/entered/app:1"
    job(f"mkdir -p shut/home && chmod 0 shut && ocitool --quiet copy {IMAGE} {image}", HOME="shut/home")
    assert job(f"ocitool digest {image}", HOME="shut").stdout == digests()["hello:1.0"] + "\n"
    told = job("ocitool store ls", code=1, HOME="shut").stderr
    assert told.startswith("ocitool: this user has no home directory, or may not enter it\n")
    job("chmod 700 shut")


@pytest.mark.parametrize(
    ("command", "helps"),
    [
        ("store ls", "OCITOOL_STORE"),
        ("pull 127.0.0.1:1/app:1", "--store"),
        (f"run {IMAGE}", "--store"),
        ("login --username user --password-stdin REGISTRY", "--authfile"),
        ("mirror plan mirror.yml", "--state"),
    ],
)
def test_who_has_no_home_is_told_what_to_name_in_its_place(
    job: Callable[..., subprocess.CompletedProcess[str]], command: str, helps: str, guarded: str
) -> None:
    mirror = f"printf 'version: 1\nsources: [{{image: {guarded}/a:1, to: {guarded}/b:1}}]' >mirror.yml"
    told = job(
        f"{mirror}; echo secret-password | ocitool {command.replace('REGISTRY', guarded)}",
        code=125 if command.startswith("run ") else 1,
    ).stderr
    assert told.startswith("ocitool: this user has no home directory, or may not enter it\n")
    assert helps in told


@pytest.mark.parametrize(
    ("command", "code"), [("pull 127.0.0.1:1/app:1", 1), (f"run {IMAGE}", 125), ("run ./bundle", 125)]
)
def test_who_may_not_write_at_home_is_told_of_other_places(
    job: Callable[..., subprocess.CompletedProcess[str]], command: str, code: int
) -> None:
    told = job(
        f"ocitool --quiet unpack {IMAGE} bundle; ocitool {command}", code=code, HOME="/nonexistent"
    ).stderr
    assert "can't be made" in told
    assert "--store" in told
