"""Names that are one to a file system: those that differ in case only, or in how a letter is composed.

Where a target ignores case, an image's `README` and `readme` would overwrite each other, so the second one is
refused. Other targets are not looked at beyond one probe.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ocitool.errors import Unsupported
from ocitool.unpack import whiteouts
from ocitool.unpack.entries import Archive, Entry, Kind, shown
from ocitool.unpack.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.streams import Reader

_PROBE: Final = b".ocitool-probe"


def watch(fd: int) -> Names | None:
    """Watch over the names in an empty directory, if it takes one for another that differs in case.

    Each directory may decide for itself (chattr +F), but those that are made in it follow.
    """
    with suppress(OSError):  # where nothing can be written, others will say so
        os.close(os.open(_PROBE, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
        try:
            os.stat(_PROBE.upper(), dir_fd=fd, follow_symlinks=False)
        finally:
            os.unlink(_PROBE, dir_fd=fd)
        return Names(fd)
    return None


def archive(reader: Reader, names: Names | None, *, max_entries: int) -> Archive:
    """An archive whose entries are checked before they are given, if there is a reason to."""
    if names is None:
        return Archive(reader, max_entries=max_entries)
    return _Watched(reader, names, max_entries=max_entries)


class Names:
    """The names that were used last for what there is in a tree."""

    def __init__(self, fd: int) -> None:
        """Watch an open directory, which stays the caller's."""
        self._root = Root(os.dup(fd))
        self._last: dict[str, bytes] = {}

    def close(self) -> None:
        """Stop watching."""
        self._root.close()

    def check(self, entry: Entry) -> None:
        """Be sure that an entry touches only what it names.

        Raises:
            Unsupported: something is there that has another name.
        """
        meaning = whiteouts.meaning(entry.path) if whiteouts.MARK in entry.path else None
        if isinstance(meaning, whiteouts.Whiteout):
            self._look(meaning.directory)
            self._look(meaning.directory + b"/" + meaning.name if meaning.name else b"")
        elif meaning is None:
            self._look(entry.path, made=True)
            self._look(entry.link if entry.kind is Kind.HARDLINK else b"")

    def _look(self, path: bytes, *, made: bool = False) -> None:
        self._root.forget()
        above = b""
        for name in filter(None, path.split(b"/")):
            directory = self._root.directory(above)
            where = directory.join(name) if directory else above + b"/" + name
            key = _folded(where)
            last = self._last.get(key)
            if directory and last != name and _is_there(directory.fd, name):
                raise Unsupported(
                    f"the target ignores case: {shown(where)} and {shown(directory.join(last or b'?'))}"
                    " would be one file",
                    hint="unpack on a file system that tells them apart",
                )
            if made:
                self._last[key] = name
            above = above + b"/" + name if above else name


class _Watched(Archive):
    def __init__(self, reader: Reader, names: Names, *, max_entries: int) -> None:
        super().__init__(reader, max_entries=max_entries)
        self._names = names

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            self._names.check(entry)
            yield entry


def _folded(path: bytes) -> str:
    import unicodedata

    return unicodedata.normalize("NFD", path.decode("utf-8", "surrogateescape").casefold())


def _is_there(fd: int, name: bytes) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=fd, follow_symlinks=False)
        return True
    return False
