"""The attributes of what has been made: owner, extended attributes, mode and times, in this order.

chown(2) clears setuid and file capabilities, a mode may forbid to set attributes, and writing changes the
time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from ocitool.errors import OciError, UnsafeContent
from ocitool.unpack.entries import Kind, shown
from ocitool.unpack.owners import RECORD, is_refusal

if TYPE_CHECKING:
    from ocitool.unpack.entries import Entry
    from ocitool.unpack.owners import Owners
    from ocitool.unpack.root import Directory
    from ocitool.unpack.tally import Tally

NODES: Final = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}
"""The file types of what mknod(2) makes."""

# Labels and seals of the host that made the layer, and the marks of overlay mounts, which would change
# what a mount of this tree shows.
_FOREIGN_XATTRS: Final = frozenset(
    {b"security.selinux", b"security.evm", b"system.nfs4_acl", b"system.nfs4acl", RECORD}
)
_FOREIGN_PREFIXES: Final = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")


class Attributes:
    """Gives files what their entries say of them, and counts what is refused or left out."""

    def __init__(self, owners: Owners, tally: Tally) -> None:
        self._owners = owners
        self._tally = tally

    def own(self, fd: int, entry: Entry, owner: tuple[int, int] | None, record: bytes) -> None:
        """Give an open file its owner, as `Owners` has it, and its extended attributes."""
        if owner:
            os.chown(fd, *owner)
        self._set_xattrs(fd, record, entry)

    def describe(self, fd: int, entry: Entry) -> None:
        """Give an open file all of its attributes."""
        uid, gid = entry.uid, entry.gid
        self.own(fd, entry, self._owners.change(uid, gid), self._owners.record(uid, gid))
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def describe_by_name(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """Give something all of its attributes that can't be opened, or must not be."""
        owner = self._owners.change(entry.uid, entry.gid)
        if owner:
            os.chown(name, *owner, dir_fd=parent.fd, follow_symlinks=False)
        record = self._owners.record(entry.uid, entry.gid)
        if record or entry.xattrs:
            # The kernel has no call for this yet that takes a directory; the magic link is one.
            path = b"/proc/self/fd/%d/%s" % (parent.fd, name)
            self._set_xattrs(path, record, entry)
        if entry.kind is not Kind.SYMLINK:
            self._chmod_node(parent, name, entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent.fd, follow_symlinks=False)

    def _chmod_node(self, parent: Directory, name: bytes, entry: Entry) -> None:
        # chmod(2) follows links, and opening a device may do anything: hold it by O_PATH, be sure that it
        # is what was made, and change that.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != NODES[entry.kind]:
                raise UnsafeContent(f"{shown(entry.path)} was replaced while it was being unpacked")
            os.chmod(b"/proc/self/fd/%d" % fd, entry.mode)  # noqa: PTH101 - a magic link, in bytes
        finally:
            os.close(fd)

    def _set_xattrs(self, file: int | bytes, record: bytes, entry: Entry) -> None:
        if record:
            self._set_xattr(file, RECORD, record, entry)
        for key, value in entry.xattrs:
            if key in _FOREIGN_XATTRS or key.startswith(_FOREIGN_PREFIXES):
                self._tally.filtered += 1
            else:
                self._set_xattr(file, key, value, entry)

    def _set_xattr(self, file: int | bytes, key: bytes, value: bytes, entry: Entry) -> None:
        try:
            os.setxattr(file, key, value, follow_symlinks=isinstance(file, int))
        except OSError as error:
            if not is_refusal(error):
                raise OciError(
                    f"{shown(entry.path)} can't have its attribute {shown(key)}: {error.strerror}"
                ) from error
            self._tally.xattrs += 1
