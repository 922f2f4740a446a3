"""A canary outside every root, which no layer may touch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ocitool.unpack import openat2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file in it; the test fails if anything about either has changed at its end."""
    where = tmp_path / "canary"
    where.mkdir(0o755)
    song = where / "song"
    song.write_bytes(b"tweet")
    song.chmod(0o640)
    for path in (song, where):
        os.utime(path, ns=(1_000_000_001, 1_000_000_002))
    before = [_everything(path) for path in (where, song)]
    yield where
    assert [_everything(path) for path in (where, song)] == before
    assert song.read_bytes() == b"tweet"
    assert [path.name for path in where.iterdir()] == ["song"]


@pytest.fixture(params=["openat2", "walk"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to follow links inside a root: the kernel's, and ours for kernels without it."""
    if request.param == "walk":
        monkeypatch.setattr(openat2, "available", lambda: False)
    elif not openat2.available():
        pytest.skip("this kernel has no openat2 (Linux 5.6)")
    return str(request.param)


def _everything(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    return (
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_nlink,
        status.st_mtime_ns,
        status.st_ctime_ns,
        os.listxattr(path),
    )
