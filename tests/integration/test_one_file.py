"""`ocitool.pyz`: the command line and all that it needs in one file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from support.fixtures import digests, layout

ROOT = Path(__file__).parents[2]
IMAGE = f"oci:{layout()}:hello:1.0"


def required(name: str, found: set[str]) -> set[str]:
    """The installed packages that one needs, itself included."""
    try:
        needs = distribution(name).requires or []
    except PackageNotFoundError:
        return found  # of other systems, or of other versions of Python
    found.add(name)
    for need in needs:
        other = re.split(r"[^A-Za-z0-9._-]", need)[0].lower()
        if "extra ==" not in need and other not in found:
            required(other, found)
    return found


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, made of the packages that the tests themselves run with."""
    directory = tmp_path_factory.mktemp("pyz")
    for name in required("ocitool", set()) - {"ocitool"}:
        for file in distribution(name).files or []:
            if ".." not in file.parts:
                target = directory / "packages" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    shutil.copytree(ROOT / "ocitool", directory / "packages" / "ocitool")
    made = directory / "ocitool.pyz"
    script = ROOT / "scripts" / "make_pyz.py"
    subprocess.run([sys.executable, script, directory / "packages", made], check=True)
    before = made.read_bytes()
    subprocess.run([sys.executable, script, directory / "packages", made], check=True)
    assert made.read_bytes() == before
    return made


def run(pyz: Path, home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it with a Python that has nothing installed, and a home of its own."""
    python = Path(sys.base_prefix, "bin", "python3")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(
        [python, "-S", pyz, *arguments],
        capture_output=True, text=True, env=environment, cwd=home, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_one_file_does_what_the_installed_command_does(pyz: Path, tmp_path: Path) -> None:
    assert run(pyz, tmp_path, "copy", IMAGE, "oci:copy:1").stdout == digests()["hello:1.0"] + "\n"
    (unpacked,) = (tmp_path / ".cache" / "ocitool").iterdir()
    made = unpacked.stat().st_ino
    assert "Hello" in run(pyz, tmp_path, "run", "oci:copy:1").stdout
    run(pyz, tmp_path, "run", "oci:copy:1", "exit", "7", code=7)
    assert "can't be reached" in run(pyz, tmp_path, "tags", "127.0.0.1:1/app", code=12).stderr
    assert [each.stat().st_ino for each in (tmp_path / ".cache" / "ocitool").iterdir()] == [made]


def test_where_it_can_not_be_unpacked_it_says_so(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("in the way")
    told = run(pyz, tmp_path, "--version", code=1).stderr
    assert (
        told == f"ocitool.pyz: its packages can't be unpacked in {tmp_path}/.cache/ocitool: Not a directory;"
        " name another directory in XDG_CACHE_HOME\n"
    )


def test_another_python_than_it_was_made_for_is_named(pyz: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(pyz) as made, zipfile.ZipFile(other, "w") as archive:
        archive.writestr("__main__.py", made.read("__main__.py"))
        archive.writestr("made-for", "0123456789abcdef cpython-399 s390x")
    told = run(other, tmp_path, "--version", code=1).stderr
    assert told.startswith("ocitool.pyz: it is made for cpython-399 on s390x, and this is ")
