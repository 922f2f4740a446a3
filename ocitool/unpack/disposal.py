"""Removing what was unpacked or changed, whoever its files belong to.

In a user namespace with delegated ids (subuid(5)), a container's programs make files that belong to those
ids on the host. An ordinary user may remove them from inside of such a namespace alone.
"""

from __future__ import annotations

import os

from ocitool.errors import OciError
from ocitool.unpack.removal import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike


def dispose(directory: str | PathLike[str]) -> None:
    """Remove a directory and what it holds, as far as this user may by any means."""
    discard(directory)
    if os.geteuid() == 0 or not os.path.lexists(directory):
        return
    from pathlib import Path

    from ocitool.unpack.idmap import IdMap
    from ocitool.unpack.namespace import Mapped

    ids = IdMap.delegated()
    if ids:
        try:
            Mapped(Path(directory), ids).close(keep=False)
        except (OSError, OciError):
            return
