"""Applying layers to a root: entries become files (image-spec, layer.md, "Applying Changesets").

Directories get their attributes when everything else is done, and until then are 0700 and ours, so that
nothing in them inherits a group or an access control list.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ocitool.errors import InvalidContent, OciError, UnsafeContent
from ocitool.unpack import removal, whiteouts
from ocitool.unpack.attributes import NODES, Attributes
from ocitool.unpack.entries import FILE, Entry, Kind, shown
from ocitool.unpack.root import OPEN_DIRECTORY, Directory, Root
from ocitool.unpack.volumes import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.unpack.entries import Archive
    from ocitool.unpack.owners import Owners
    from ocitool.unpack.sparse import Sparse
    from ocitool.unpack.tally import Tally

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o600
_open: Final = os.open
_IMPLIED: Final = Entry(Kind.DIRECTORY, b"", 0o755, 0, 0, 0, 0)
"""What a directory gets that no entry describes, the root too: the same every time, so with a fixed time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to make of entries that need privilege.

    Attributes:
        devices: make device nodes; else they are left out and counted.
    """

    devices: bool


class Applier:
    """Applies layers, from the lowest on, to a root that was empty.

    Call `apply` for each layer and `finish` once at the end.
    """

    def __init__(self, fd: int, owners: Owners, tally: Tally, policy: Policy) -> None:
        """Take over the root's file descriptor; `close` closes it."""
        self._directories: dict[bytes, Entry] = {b"": _IMPLIED}
        self.root = Root(fd, made=self._implied)
        self._owners = owners
        self._attributes = Attributes(owners, tally)
        self._tally = tally
        self._policy = policy
        self._unusual = ~0o777 | _umask()  # bits that open(2) would not give
        self._layers = 0
        # Paths that the layer at hand has brought. Their 64-bit hashes, because a layer may have millions of
        # them; two that are equal would spare one file of a lower layer, once in longer than disks last.
        self._upper: set[int] = set()
        self._hidden: set[bytes] = set()  # its whiteouts

    def close(self) -> None:
        """Close every directory."""
        self.root.close()

    def apply(self, archive: Archive) -> None:
        """Apply one layer.

        Raises:
            InvalidContent: the archive is no layer.
            UnsafeContent: it tries to leave the root, or exceeds a limit.
            OciError: the file system refuses, for lack of space for example.
        """
        makers = {
            Kind.DIRECTORY: self._directory,
            Kind.SYMLINK: self._symlink,
            Kind.HARDLINK: self._hardlink,
            Kind.FIFO: self._node,
            Kind.CHARACTER: self._node,
            Kind.BLOCK: self._node,
        }
        known, made, upper = self.root.known, self.root.made, self._upper
        count = 0
        entry = _IMPLIED
        try:
            for entry in archive:
                count += 1
                path = entry.path
                if path.find(whiteouts.MARK) >= 0 and self._whiteout(path):
                    continue
                directory, _, name = path.rpartition(b"/")
                if not name:
                    self._top(entry)
                    continue
                parent = known.get(directory) or made(directory)
                if entry.kind is FILE:
                    self._file(entry, parent, name, archive)
                else:
                    makers[entry.kind](entry, parent, name)
                if self._layers:
                    upper.add(hash(parent.path + b"/" + name if parent.path else name))
        except OSError as error:
            raise OciError(f"{shown(entry.path)} can't be unpacked: {error.strerror}") from error
        self._tally.entries += count
        self._layers += 1
        upper.clear()
        self._hidden.clear()

    def finish(self) -> None:
        """Give the directories their owners, modes and times.

        From the deepest up, because a directory's own mode may shut us out.
        """
        path = b""
        try:
            for path in sorted(self._directories, reverse=True):
                above, _, name = path.rpartition(b"/")
                fd = os.open(name or b".", OPEN_DIRECTORY, dir_fd=self.root.made(above).fd)
                try:
                    self._describe(fd, self._directories[path], path)
                finally:
                    os.close(fd)
        except OSError as error:
            raise OciError(f"{shown(path)} can't be unpacked: {error.strerror}") from error

    def read(self, path: bytes, *, limit: int) -> bytes | None:
        """See `volumes.Tree`."""
        return self.root.read(path, limit=limit)

    def folder(self, path: bytes) -> Folder | None:
        """See `volumes.Tree`: as the directory is to be described at the end."""
        directory = self.root.directory(path)
        if directory is None:
            return None
        entry, empty = self._directories[directory.path], not os.listdir(directory.fd)  # noqa: PTH208 - open
        uid, gid = self._owners.inside(entry.uid, entry.gid)
        return Folder(entry.mode, uid, gid, empty=empty)

    @property
    def describes_root(self) -> bool:
        """Whether a layer said anything about the root itself."""
        return self._directories[b""] is not _IMPLIED

    # Making things

    def _file(self, entry: Entry, parent: Directory, name: bytes, archive: Archive) -> None:
        _, _, mode, uid, gid, mtime, size, _, _, xattrs, sparse = entry
        owner = self._owners.change(uid, gid)
        record = self._owners.record(uid, gid)
        plain = not (owner or record or xattrs or mode & self._unusual)
        try:
            fd = _open(name, _CREATE, mode if plain else _PRIVATE, dir_fd=parent.fd)
        except FileExistsError:
            self._replace(parent, name)
            fd = _open(name, _CREATE, mode if plain else _PRIVATE, dir_fd=parent.fd)
        try:
            if sparse:
                _write_extents(fd, sparse, archive.body())
            elif size:
                for piece in archive.body():
                    _write(fd, piece)
            self._tally.bytes += size
            if not plain:
                self._attributes.own(fd, entry, owner, record)
                os.fchmod(fd, mode)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, parent: Directory, name: bytes) -> None:
        path = parent.join(name)
        # layer.md: "If the entry and the existing path are both directories, then the existing path's
        # attributes MUST be replaced by those of the entry in the changeset."
        if path not in self._directories:
            try:
                os.mkdir(name, 0o700, dir_fd=parent.fd)
            except FileExistsError:
                self._replace(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent.fd)
        self._directories[path] = entry

    def _symlink(self, entry: Entry, parent: Directory, name: bytes) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent.fd)
        except FileExistsError:
            self._replace(parent, name)
            os.symlink(entry.link, name, dir_fd=parent.fd)
        self._attributes.describe_by_name(parent, name, entry)

    def _hardlink(self, entry: Entry, parent: Directory, name: bytes) -> None:
        try:
            self._link(entry, parent, name)
        except FileExistsError:
            self._replace_by_link(entry, parent, name)

    def _replace_by_link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        directory, _, target = entry.link.rpartition(b"/")
        source = self.root.directory(directory)
        if source and source.join(target) == parent.join(name):
            return  # a second name for itself
        self._replace(parent, name)
        # What was in the way may have held the target, which then is not there any more.
        self._link(entry, self.root.made(parent.path), name)

    def _link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        directory, _, target = entry.link.rpartition(b"/")
        source = self.root.directory(directory)
        if source is None or not target:
            raise InvalidContent(
                f"{shown(entry.path)} is a hard link to {shown(entry.link)}, which is not there"
            )
        try:
            # Python 3.14 follows links here unless told not to.
            os.link(target, name, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            reason = "can't have one" if isinstance(error, PermissionError) else "is not there"
            raise InvalidContent(
                f"{shown(entry.path)} is a hard link to {shown(entry.link)}, which {reason}"
            ) from error

    def _node(self, entry: Entry, parent: Directory, name: bytes) -> None:
        if entry.kind is not Kind.FIFO and not self._policy.devices:
            self._tally.devices += 1
            self._remove_if_there(parent, name)
            return
        mode, device = NODES[entry.kind] | _PRIVATE, os.makedev(*entry.device)
        try:
            os.mknod(name, mode, device, dir_fd=parent.fd)
        except FileExistsError:
            self._replace(parent, name)
            os.mknod(name, mode, device, dir_fd=parent.fd)
        self._attributes.describe_by_name(parent, name, entry)

    def _top(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise UnsafeContent(f"the layer would replace the root itself by a {entry.kind.value}")
        self._directories[b""] = entry

    # Removing things

    def _whiteout(self, path: bytes) -> bool:
        """Apply an entry that may be a whiteout; whether it was one."""
        meaning = whiteouts.meaning(path)
        if meaning is None:
            return False
        # layer.md: "Whiteout files MUST only apply to resources in lower/parent layers."
        if isinstance(meaning, whiteouts.Whiteout) and self._layers:
            directory = self.root.directory(meaning.directory)
            if directory:
                self._hide(directory, meaning.name)
        return True

    def _hide(self, directory: Directory, name: bytes) -> None:
        hidden = directory.join(name or whiteouts.OPAQUE)
        if hidden in self._hidden:
            return  # what is there by now comes from the layer itself
        self._hidden.add(hidden)
        if name:
            self._remove_if_there(directory, name, self)
        else:
            removal.clear(directory.fd, directory.path, self)
            self.root.forget()

    def _replace(self, parent: Directory, name: bytes) -> None:
        """Remove what is in an entry's way.

        layer.md: "In all other cases, the implementation MUST do the semantic equivalent of the following:
        removing the file path […], recreating the file path". Never written through: it may have a second
        name, or be a device.
        """
        if removal.remove(parent, name, _Replaced(self._directories)):
            self.root.forget()

    def _remove_if_there(
        self, parent: Directory, name: bytes, survivors: removal.Survivors | None = None
    ) -> None:
        try:
            if removal.remove(parent, name, survivors or _Replaced(self._directories)):
                self.root.forget()
        except FileNotFoundError:
            return

    def spares(self, path: bytes, /) -> bool:
        """See `Survivors`: a whiteout spares what its own layer brought."""
        return hash(path) in self._upper

    def removed(self, path: bytes, /) -> None:
        """See `Survivors`."""
        self._directories.pop(path, None)

    def emptied(self, path: bytes, /) -> None:
        """See `Survivors`: the lower directory is hidden, and no entry describes the one that stays."""
        self._directories[path] = _IMPLIED

    # Describing things

    def _implied(self, path: bytes) -> None:
        self._directories[path] = _IMPLIED

    def _describe(self, fd: int, entry: Entry, path: bytes) -> None:  # noqa: ARG002 - overlays need it
        """Give an open directory its attributes."""
        self._attributes.describe(fd, entry)


class _Replaced:
    """Spares nothing, and has the directories forgotten."""

    def __init__(self, directories: dict[bytes, Entry]) -> None:
        self._directories = directories

    def spares(self, _path: bytes, /) -> bool:
        return False

    def removed(self, path: bytes, /) -> None:
        self._directories.pop(path, None)

    def emptied(self, path: bytes, /) -> None:
        """Never called: nothing is spared."""


def _write(fd: int, piece: memoryview) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, piece[written:])


def _write_extents(fd: int, sparse: Sparse, body: Iterable[memoryview]) -> None:
    """Write a body with holes: the end first, so that the rest of the file is one."""
    os.truncate(fd, sparse.size)
    pieces = iter(body)
    piece = memoryview(b"")
    for start, length in sparse.extents:
        at, end = start, start + length
        while at < end:
            if not piece:
                piece = next(pieces)
            written = os.pwrite(fd, piece[: end - at], at)
            piece = piece[written:]
            at += written


def _umask() -> int:
    """The process's umask; asking with umask(2) would change it for every thread meanwhile."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return 0o777
    found = re.search(rb"^Umask:\s*([0-7]+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else 0o777
