"""Whiteouts: what the names of a layer's entries say about the layers below (image-spec, layer.md).

Pure: paths in, meanings out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ocitool.errors import InvalidContent

MARK: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
_RESERVED: Final = b".wh..wh."


class Whiteout(NamedTuple):
    """What an entry hides.

    Attributes:
        directory: where, relative to the root.
        name: what in there, or b"" for everything ("opaque").
    """

    directory: bytes
    name: bytes


class Nothing(NamedTuple):
    """An entry of the union file system's own bookkeeping, which means nothing to others."""


def meaning(path: bytes) -> Whiteout | Nothing | None:
    """What a path with `.wh.` in it means; None where it is a name like any other.

    Raises:
        InvalidContent: it can't be applied.
    """
    directory, _, name = path.rpartition(b"/")
    if any(part.startswith(MARK) for part in directory.split(b"/")):
        return _inside(path)
    if not name.startswith(MARK):
        return None
    if name == OPAQUE:
        return Whiteout(directory, b"")
    if name.startswith(_RESERVED):
        return Nothing()
    hidden = name[len(MARK) :]
    if hidden in {b"", b".", b".."}:
        raise InvalidContent(f"the whiteout {name.decode()!r} names nothing that could be removed")
    return Whiteout(directory, hidden)


def _inside(path: bytes) -> Nothing:
    # Layers made on aufs hold its directories .wh..wh.plnk and .wh..wh.orph.
    if path.split(b"/")[0].startswith(_RESERVED):
        return Nothing()
    # layer.md: "it is not possible to create a filesystem which has a file or directory with a name
    # beginning with `.wh.`."
    raise InvalidContent(f"an entry lies in a directory whose name marks a whiteout: {path[:200]!r}")
