"""Everything about a directory tree that two unpackers could disagree on."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Node(NamedTuple):
    """What is at one path."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    target: bytes
    device: int
    xattrs: tuple[tuple[str, bytes], ...]
    content: str
    first_name: str
    """The first path of the same inode: two trees share it only if the same names are hard links."""


def tree(root: Path) -> dict[str, Node]:
    """Every path under a root, relative to it, and what is there; "." is the root itself."""
    first_names: dict[tuple[int, int], str] = {}
    found = {}
    for path in _paths(os.fsencode(root)):
        name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
        status = os.lstat(path)
        first = first_names.setdefault((status.st_dev, status.st_ino), name)
        found[name] = _node(path, status, first)
    return found


def differences(left: dict[str, Node], right: dict[str, Node]) -> list[str]:
    """What differs, in words."""
    said = [f"only left: {name}" for name in sorted(left.keys() - right.keys())]
    said += [f"only right: {name}" for name in sorted(right.keys() - left.keys())]
    for name in sorted(left.keys() & right.keys()):
        for field, one, other in zip(Node._fields, left[name], right[name], strict=True):
            if one != other:
                said.append(f"{name}: {field} {one!r} != {other!r}")
    return said


def _paths(root: bytes) -> Iterator[bytes]:
    yield root
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(directories + files):
            yield directory + b"/" + name


def _node(path: bytes, status: os.stat_result, first: str) -> Node:
    kind = stat.S_IFMT(status.st_mode)
    is_file, is_link, is_directory = stat.S_ISREG(kind), stat.S_ISLNK(kind), stat.S_ISDIR(kind)
    xattrs = ((key, os.getxattr(path, key, follow_symlinks=False)) for key in _xattrs(path))
    content = ""
    if is_file:
        with Path(os.fsdecode(path)).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return Node(
        kind=stat.filemode(status.st_mode)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=0 if is_directory else status.st_size,
        mtime=status.st_mtime_ns,
        links=0 if is_directory else status.st_nlink,
        target=os.readlink(path) if is_link else b"",  # noqa: PTH115 - bytes
        device=status.st_rdev,
        xattrs=tuple(sorted(xattrs)),
        content=content,
        first_name="" if is_directory else first,
    )


def _xattrs(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
