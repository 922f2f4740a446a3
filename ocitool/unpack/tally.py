"""What an unpack could not represent, counted: data for whoever reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts of one unpack.

    Attributes:
        entries: entries applied, whiteouts included.
        bytes: bytes of file content written.
        owners: files whose owner is not the one that the image names.
        devices: device nodes that were left out.
        xattrs: extended attributes that the file system, or the lack of privilege, refused.
        filtered: extended attributes left out because they mean something only to the host that made them.
    """

    entries: int = 0
    bytes: int = 0
    owners: int = 0
    devices: int = 0
    xattrs: int = 0
    filtered: int = 0
