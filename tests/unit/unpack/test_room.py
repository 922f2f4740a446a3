"""How much room a tree takes is what du(1) says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ocitool.unpack.room import occupied


def used(path: Path) -> int:
    told = subprocess.run(
        ["du", "--summarize", "--block-size=1", path], check=True, capture_output=True, text=True
    )
    return int(told.stdout.split()[0])


def test_a_tree_takes_what_du_says(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "again").hardlink_to(deep / "file")
    (tmp_path / "link").symlink_to("/usr")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 30)
    assert 100_000 <= occupied(tmp_path) == used(tmp_path) < 1 << 30


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert occupied(tmp_path / "none") == 0
