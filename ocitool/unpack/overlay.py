"""Layers kept one by one, as an overlay mount stacks them (the kernel's filesystems/overlayfs).

Each layer is unpacked once, under its diff ID, and shared by all images that have it. A layer that can't
stand alone, because it has files below directories or links to files that only lower layers have, is kept
together with what is below it, under their chain ID: always right, and rarely needed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool.digest import Digest
from ocitool.errors import InvalidContent, OciError, Unsupported
from ocitool.unpack import image as images
from ocitool.unpack import layers, whiteouts
from ocitool.unpack.apply import Applier, Policy
from ocitool.unpack.entries import Archive
from ocitool.unpack.owners import Given, Single
from ocitool.unpack.root import OPEN_DIRECTORY
from ocitool.unpack.staging import staged
from ocitool.unpack.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor
    from ocitool.unpack.entries import Entry
    from ocitool.unpack.image import UnpackOptions
    from ocitool.unpack.owners import Owners
    from ocitool.unpack.root import Directory

_TREE = "diff"
_ROOT = "root"  # beside the tree where the layer describes the root itself


@dataclass(frozen=True, slots=True)
class Stack:
    """An image's layers in a cache.

    Attributes:
        lowers: directories for an overlay mount's `lowerdir`, the highest first.
        root: the one of them whose own mode, owner and time the mounted root has to get.
        userxattr: whether the mount needs the option `userxattr`, as one without privilege does.
    """

    lowers: tuple[Path, ...]
    root: Path
    userxattr: bool


class _NeedsLower(Exception):
    """A layer means something only on top of others."""


def cache_layers(
    source: Source,
    image: Descriptor,
    cache: Path,
    *,
    options: UnpackOptions = images.UnpackOptions(),  # noqa: B008 - frozen
) -> Stack:
    """Make sure that an image's layers are in a cache; several processes may do so at once.

    Args:
        source: where the image is.
        image: an image manifest's descriptor.
        cache: a directory, made if it is not there. Trees for root and for ordinary users differ, so
            each needs a cache of their own.
        options: as for `unpack`, whose `keep_owner`, `devices`, `sync` and limits count.

    Raises:
        OciError: as `unpack`.
    """
    manifest, config = images.documents(source, image)
    layers.check(manifest.layers, config.diff_ids)
    keep = os.geteuid() == 0 if options.keep_owner is None else options.keep_owner
    if keep and os.geteuid() != 0:
        raise Unsupported("a layer cache for several mapped users is not supported")
    cache.mkdir(0o700, parents=True, exist_ok=True)
    maker = _Maker(source, cache, options, keep_owner=keep)
    wanted = list(zip(manifest.layers, config.diff_ids, strict=True))
    stack: list[Path] = []
    for number, (layer, diff_id) in enumerate(wanted):
        if number:
            try:
                alone = maker.made(diff_id, [(layer, diff_id)], merged=False)
            except _NeedsLower:
                pass
            else:
                # Twice the same layer: the higher one brings and hides all that the lower one does, and the
                # kernel takes no directory twice.
                stack = [alone, *(path for path in stack if path != alone)]
                continue
        # The lowest layer hides nothing, and needs no marks that say so.
        chain = chain_id(config.diff_ids[: number + 1])
        stack = [maker.made(chain, wanted[: number + 1], merged=True)]
    described = [path for path in stack if (path.parent / _ROOT).exists()]
    return Stack(tuple(stack), described[0] if described else stack[-1], userxattr=not keep)


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The name of a stack of layers (image-spec, config.md, "Layer ChainID")."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain


class _Maker:
    """Makes the trees of a cache, each once."""

    def __init__(self, source: Source, cache: Path, options: UnpackOptions, *, keep_owner: bool) -> None:
        self._source = source
        self._cache = cache
        self._options = options
        self._keep_owner = keep_owner

    def made(self, key: Digest, wanted: Sequence[tuple[Descriptor, Digest]], *, merged: bool) -> Path:
        """The tree of one layer, or of several merged, made if it is not there.

        Raises:
            _NeedsLower: the layer can't stand alone.
        """
        target = self._cache / f"{'chain' if merged else 'layer'}-{key.algorithm}-{key.hex}"
        refused = target.with_name(f"{target.name}.needs-lower")
        with _locked(target.with_name(f"{target.name}.lock")):
            if not merged and refused.exists():
                raise _NeedsLower
            if not target.exists():
                try:
                    with staged(target, sync=self._options.sync) as staging:
                        self._build(staging, wanted, merged=merged)
                except _NeedsLower:
                    refused.touch()
                    raise
        return target / _TREE

    def _build(self, staging: Path, wanted: Sequence[tuple[Descriptor, Digest]], *, merged: bool) -> None:
        tree = staging / _TREE
        tree.mkdir(0o700)
        tally = Tally()
        owners = Given() if self._keep_owner else Single(tally)
        devices = self._keep_owner if self._options.devices is None else self._options.devices
        kind = Applier if merged else _Alone
        applier = kind(os.open(tree, OPEN_DIRECTORY), owners, tally, Policy(devices=devices))
        try:
            blobs, diff_ids = zip(*wanted, strict=True)
            with layers.opened(self._source, blobs, diff_ids, limit=self._options.max_bytes) as streams:
                for stream in streams:
                    try:
                        applier.apply(Archive(stream, max_entries=self._options.max_entries))
                    except InvalidContent:
                        layers.drain(stream)
                        raise
            applier.finish()
            if merged or applier.describes_root:
                (staging / _ROOT).touch()
        finally:
            applier.close()


class _Alone(Applier):
    """Applies one layer to an empty root, with its whiteouts as the kernel wants them.

    A removed file is a character device 0:0 (which needs no privilege); a directory that hides what is
    below it has an attribute that says so.
    """

    def __init__(self, fd: int, owners: Owners, tally: Tally, policy: Policy) -> None:
        super().__init__(fd, owners, tally, policy)
        self._meant: list[whiteouts.Whiteout] = []
        self._opaque: set[bytes] = set()
        self._privileged = isinstance(owners, Given)

    def finish(self) -> None:
        """See `Applier`; first of all, because they change directories, come the whiteouts."""
        try:
            for whiteout in self._meant:
                self._mark(whiteout)
        except OSError as error:
            raise OciError(f"a whiteout can't be kept: {error.strerror}") from error
        super().finish()

    def _whiteout(self, path: bytes) -> bool:
        meaning = whiteouts.meaning(path)
        if isinstance(meaning, whiteouts.Whiteout):
            self._meant.append(meaning)
        return meaning is not None

    def _mark(self, whiteout: whiteouts.Whiteout) -> None:
        directory = self.root.directory(whiteout.directory)
        if directory is None:
            raise _NeedsLower
        path = directory.join(whiteout.name) if whiteout.name else directory.path
        if path in self._directories:
            self._opaque.add(path)
            return
        try:
            os.mknod(whiteout.name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory.fd)
        except FileExistsError:
            return  # what the layer brings hides it anyway

    def _implied(self, path: bytes) -> None:
        raise _NeedsLower(path)

    def _link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        try:
            super()._link(entry, parent, name)
        except InvalidContent as error:
            raise _NeedsLower from error

    def _describe(self, fd: int, entry: Entry, path: bytes) -> None:
        if path in self._opaque:
            os.setxattr(fd, b"trusted.overlay.opaque" if self._privileged else b"user.overlay.opaque", b"y")
        super()._describe(fd, entry, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
