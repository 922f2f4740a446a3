"""Who makes the root file system: this process, or one in a user namespace where more users exist."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ocitool import limits
from ocitool.unpack import twins, volumes
from ocitool.unpack.apply import Applier, Policy
from ocitool.unpack.comparing import layer_between
from ocitool.unpack.owners import Given, Shifted, Single
from ocitool.unpack.ownership import as_they_are
from ocitool.unpack.root import OPEN_DIRECTORY
from ocitool.unpack.tally import Tally
from ocitool.unpack.users import Accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ocitool.streams import Reader
    from ocitool.unpack.idmap import IdMap
    from ocitool.unpack.owners import Owners
    from ocitool.unpack.ownership import OwnerOf

_ACCOUNT_BYTES: Final = 4 * limits.MIB


@dataclass(frozen=True, slots=True)
class Built:
    """What is known of a root file system that is complete.

    Attributes:
        tally: counts.
        passwd: its /etc/passwd, b"" where there is none.
        group: its /etc/group, likewise.
        wanted: what becomes of the volumes.
    """

    tally: Tally
    passwd: bytes
    group: bytes
    wanted: volumes.Wanted

    def accounts(self) -> Accounts:
        """Its users and groups."""
        return Accounts.parse(self.passwd, self.group)


def looked_at(tree: volumes.Tree, wanted: Sequence[str], tally: Tally) -> Built:
    """Look at what configurations need of a root file system: its accounts, and where volumes are wanted."""
    passwd, group = (tree.read(path, limit=_ACCOUNT_BYTES) for path in (b"etc/passwd", b"etc/group"))
    return Built(tally, passwd or b"", group or b"", volumes.find(wanted, tree))


NOTHING: Final = Built(Tally(), b"", b"", volumes.Wanted())


class Builder(Protocol):
    """Makes one root file system."""

    def apply(self, stream: Reader, /, *, max_entries: int) -> None:
        """Apply a layer's tar stream (see `Applier.apply`)."""
        ...

    def finish(self, wanted: Sequence[str], /) -> Built:
        """Describe the directories, and look at what configurations need: accounts and volumes."""
        ...

    def write_changes(
        self,
        after: Path,
        write: Callable[[bytes], object],
        /,
        *,
        without: frozenset[bytes],
        latest: int | None,
    ) -> bool:
        """Write the layer that makes another root file system of this one (see `layer_between`)."""
        ...

    def close(self, *, keep: bool) -> None:
        """Let go of the root file system; one that is not to be kept may be removed."""
        ...


class Here:
    """Builds in this process."""

    def __init__(
        self,
        rootfs: Path,
        *,
        keep_owner: bool,
        devices: bool,
        ids: IdMap | None = None,
        owner_of: OwnerOf = as_they_are,
    ) -> None:
        """Build in an empty directory.

        Args:
            rootfs: the directory.
            keep_owner: give files the owners that the image names, and do not only record them.
            devices: make device nodes.
            ids: owners as a user namespace with these has them.
            owner_of: tells whose the files are.
        """
        self._rootfs = rootfs
        self._owner_of = owner_of
        self._tally = Tally()
        if keep_owner:
            owners: Owners = Shifted(ids) if ids else Given()
        else:
            owners = Single(self._tally)
        fd = os.open(rootfs, OPEN_DIRECTORY)
        self._names = twins.watch(fd)
        self._applier = Applier(fd, owners, self._tally, Policy(devices=devices))

    def apply(self, stream: Reader, /, *, max_entries: int) -> None:
        """See `Builder`."""
        self._applier.apply(twins.archive(stream, self._names, max_entries=max_entries))

    def finish(self, wanted: Sequence[str], /) -> Built:
        """See `Builder`."""
        built = looked_at(self._applier, wanted, self._tally)
        self._applier.finish()
        return built

    def write_changes(
        self,
        after: Path,
        write: Callable[[bytes], object],
        /,
        *,
        without: frozenset[bytes],
        latest: int | None,
    ) -> bool:
        """See `Builder`."""
        return layer_between(
            self._rootfs, after, write, owner_of=self._owner_of, without=without, latest=latest
        )

    def close(self, *, keep: bool) -> None:  # noqa: ARG002 - whoever made the directory can remove it
        """See `Builder`."""
        self._applier.close()
        if self._names:
            self._names.close()
