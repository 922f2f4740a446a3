"""What has to be whole before it is used, in TMPDIR or beside its place, where there is no room for it."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.disks import small_disk
from support.fixtures import layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.command import Ocitool

pytestmark = pytest.mark.root
IMAGE = f"oci:{layout()}:zstd:1.0"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of four pages."""
    with small_disk(tmp_path, "16k") as disk:
        yield disk


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (f"copy --compression none {IMAGE} oci:compressed:1", "the converted layer sha256:"),
        ("repack oci:image:1 bundle 2", "the new layer"),
        ("tags oci-archive:image.tar.gz", "a plain copy of the archive image.tar.gz"),
        ("bundle apply - oci:applied", "a copy of the bundle on standard input"),
    ],
)
def test_a_full_directory_for_temporary_files_is_named(
    ocitool: Ocitool, full: Path, words: str, what: str
) -> None:
    home = ocitool.home
    ocitool("--quiet", "copy", IMAGE, "oci:image:1")
    ocitool("--quiet", "copy", IMAGE, "oci-archive:image.tar:1")
    (home / "image.tar.gz").write_bytes(gzip.compress((home / "image.tar").read_bytes(), 1))
    ocitool("--quiet", "bundle", "create", "image.bundle", IMAGE)
    ocitool("--quiet", "unpack", IMAGE, "bundle")
    (home / "bundle/rootfs/new").write_bytes(os.urandom(100_000))
    with (home / "image.bundle").open("rb") as bundle:
        done = subprocess.run(
            [sys.executable, "-m", "ocitool", "--quiet", *words.split()],
            env={**ocitool.environment, "TMPDIR": str(full)},
            cwd=home, stdin=bundle, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"ocitool: {what}")
    assert done.stderr.endswith(
        "can't be kept until it is complete: No space left on device"
        f" in the directory for temporary files, {full}\n"
        "  name another directory in TMPDIR\n"
    )
    assert list(full.iterdir()) == []
    assert not (home / "compressed/index.json").exists()
    assert ocitool("tags", "oci:image").out == "1\n"


def test_a_file_that_can_not_be_written_whole_is_left_as_it_was(ocitool: Ocitool, full: Path) -> None:
    (full / "far.json").write_text("before")
    (full / "filler").write_bytes(bytes(12 << 10))
    ocitool("--quiet", "copy", f"oci:{layout()}:layers:1.0", "oci:image:1")
    told = ocitool("--quiet", "bundle", "inventory", "oci:image", "-o", full / "far.json", code=1).err
    assert told == f"ocitool: {full}/far.json can't be written: No space left on device\n"
    assert (full / "far.json").read_text() == "before"
    assert {path.name for path in full.iterdir()} == {"far.json", "filler"}
    assert "vnd.ocitool.inventory" in ocitool("bundle", "inventory", "oci:image", "-o", "/dev/stdout").out
