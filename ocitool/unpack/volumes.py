"""Mounts for `Config.Volumes` (image-spec, conversion.md, "Optional Fields").

"Implementations SHOULD provide mounts for these locations such that application data is not written to the
container's root filesystem." An empty directory becomes a file system in memory; where the image has files,
a mount would hide them, so there is none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ocitool import defaults
from ocitool.unpack.entries import clean

if TYPE_CHECKING:
    from collections.abc import Iterable


class Folder(NamedTuple):
    """What there is to know of a directory.

    Attributes:
        mode: its permission bits.
        uid: its owner, as the container sees it.
        gid: its group, likewise.
        empty: whether nothing is in it.
    """

    mode: int
    uid: int
    gid: int
    empty: bool


_NEW = Folder(0o755, 0, 0, empty=True)


class Tree(Protocol):
    """What a root file system shows."""

    def read(self, path: bytes, /, *, limit: int) -> bytes | None:
        """The content of a file; None where there is none, and of a larger or other one nothing either."""
        ...

    def folder(self, path: bytes, /) -> Folder | None:
        """What is known of the directory at a path; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What becomes of an image's volumes.

    Attributes:
        mounts: those of the runtime configuration.
        kept: the volumes that get none.
    """

    mounts: list[dict[str, Any]] = field(default_factory=list)
    kept: tuple[str, ...] = ()


def find(volumes: Iterable[str], root: Tree) -> Wanted:
    """Look what an image has where its volumes are to be."""
    made, kept = [], []
    for volume in sorted(volumes):
        path = clean(os.fsencode(volume))
        folder = root.folder(path) if path else None
        if not path or (folder and not folder.empty):
            kept.append(volume)
            continue
        options = ["nosuid", "nodev", *_described(folder or _NEW)]
        made.append(defaults.mount("/" + os.fsdecode(path), "tmpfs", "tmpfs", options))
    return Wanted(made, tuple(kept))


def _described(folder: Folder) -> list[str]:
    owner = [f"uid={folder.uid}", f"gid={folder.gid}"] if folder.uid or folder.gid else []
    return [f"mode={folder.mode:04o}", *owner]
