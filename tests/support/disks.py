"""File systems that are full after little."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.peers import call, require_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(beside: Path, size: str) -> Iterator[Path]:
    """A file system in memory, as large as the mount option `size` says; it needs root."""
    require_root()
    disk = beside / "small-disk"
    disk.mkdir()
    call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk)
    try:
        yield disk
    finally:
        call("umount", disk)
