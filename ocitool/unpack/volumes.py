"""Mounts for `Config.Volumes` (image-spec, conversion.md, "Optional Fields").

"Implementations SHOULD provide mounts for these locations such that application data is not written to the
container's root filesystem." An empty directory becomes a file system in memory; where the image has files,
a mount would hide them, so there is none.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocitool.unpack import defaults
from ocitool.unpack.entries import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.unpack.root import Root


@dataclass(frozen=True, slots=True)
class Wanted:
    """What becomes of an image's volumes.

    Attributes:
        mounts: those of the runtime configuration.
        kept: the volumes that get none.
    """

    mounts: list[dict[str, Any]] = field(default_factory=list)
    kept: tuple[str, ...] = ()


def find(volumes: Iterable[str], root: Root) -> Wanted:
    """Look what an image has where its volumes are to be."""
    made, kept = [], []
    for volume in sorted(volumes):
        path = clean(os.fsencode(volume))
        directory = root.directory(path) if path else None
        if not path or (directory and os.listdir(directory.fd)):  # noqa: PTH208 - a descriptor
            kept.append(volume)
            continue
        mode = stat.S_IMODE(os.fstat(directory.fd).st_mode) if directory else 0o755
        options = ["nosuid", "nodev", f"mode={mode:04o}"]
        made.append(defaults.mount("/" + os.fsdecode(path), "tmpfs", "tmpfs", options))
    return Wanted(made, tuple(kept))
