"""File systems that are full after little, and files that may not grow."""

from __future__ import annotations

import resource
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


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Have the kernel refuse, or cut off, what is written beyond so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
