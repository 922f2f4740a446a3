"""Layers kept one by one, as an overlay mount stacks them (the kernel's filesystems/overlayfs).

Each layer is unpacked once, under its diff ID, and shared by all images that have it. A layer that can't
stand alone, because it has files below directories or links to files that only lower layers have, or because
the file system keeps no marks, is kept together with what is below it, under their chain ID: always right,
and rarely needed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from ocitool.digest import Digest
from ocitool.errors import InvalidContent, OciError
from ocitool.events import Finished, Planned, Started, ignore
from ocitool.unpack import layers, staging, twins, whiteouts
from ocitool.unpack.apply import Applier, Policy
from ocitool.unpack.building import Built, looked_at
from ocitool.unpack.idmap import is_host_root
from ocitool.unpack.owners import Given, Single, is_refusal
from ocitool.unpack.removal import discard
from ocitool.unpack.root import OPEN_DIRECTORY
from ocitool.unpack.stacks import Stack
from ocitool.unpack.tally import Tally
from ocitool.unpack.union import Union

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.events import OnEvent
    from ocitool.model import Descriptor, ImageConfig, Manifest
    from ocitool.unpack.entries import Entry
    from ocitool.unpack.image import UnpackOptions
    from ocitool.unpack.owners import Owners
    from ocitool.unpack.root import Directory

_Wanted: TypeAlias = "tuple[Descriptor, Digest]"
_TREE = "diff"
_ROOT = "root"  # beside the tree where the layer describes the root itself


class _NeedsLower(Exception):
    """A layer means something only on top of others."""


class LayerCache:
    """A directory of layers, each unpacked once; several processes may add to it at once."""

    def __init__(self, directory: Path, *, keep_owner: bool, options: UnpackOptions) -> None:
        """Use a directory, made if it is not there.

        Args:
            directory: an absolute path.
            keep_owner: whether files get the owners that the images name; needs root.
            options: as for `unpack`, whose `devices`, `sync` and limits count.
        """
        # Trees with and without owners differ, and so do their marks.
        self._keep_owner = keep_owner
        self._privileged = keep_owner and is_host_root()
        kept = "owned" if self._privileged else "mapped"
        self._place = directory / (kept if keep_owner else "single")
        self._options = options
        self._tally = Tally()
        self._made = 0

    def stacked(
        self,
        source: Source,
        manifest: Manifest,
        config: ImageConfig,
        bundle: Path,
        on_event: OnEvent = ignore,
    ) -> Built:
        """Make a bundle's empty `rootfs` and the document that says which layers belong there.

        Raises:
            OciError: as `unpack`.
        """
        stack = self.add(source, manifest, config, on_event)
        (bundle / "rootfs").mkdir(0o700)
        stack.save(bundle)
        with closing(Union(stack.lowers, userxattr=stack.userxattr)) as union:
            return looked_at(union, tuple(config.config.get("Volumes") or {}), self._tally)

    def add(
        self, source: Source, manifest: Manifest, config: ImageConfig, on_event: OnEvent = ignore
    ) -> Stack:
        """Make sure that an image's layers are there.

        Raises:
            OciError: as `unpack`.
        """
        layers.check(manifest.layers, config.diff_ids)
        self._place.mkdir(0o700, parents=True, exist_ok=True)
        staging.collect(self._place)
        on_event(Planned(manifest.layers))
        wanted: list[_Wanted] = []
        stack: list[Path] = []
        for pair in zip(manifest.layers, config.diff_ids, strict=True):
            wanted.append(pair)
            before = self._made
            on_event(Started(pair[0]))
            stack = self._above(stack, source, wanted)
            on_event(Finished(pair[0], "skipped" if self._made == before else "applied"))
        if not stack:  # an image without layers has an empty root, and the kernel takes no overlay of nothing
            stack = [self._tree(chain_id(()), source, (), merged=True)]
        described = [path for path in stack if (path.parent / _ROOT).exists()]
        root = described[0] if described else stack[-1]
        return Stack(tuple(map(str, stack)), str(root), userxattr=not self._privileged)

    def _above(self, stack: list[Path], source: Source, wanted: Sequence[_Wanted]) -> list[Path]:
        """The trees of some layers, where those of all but the last are known."""
        if stack:
            try:
                alone = self._tree(wanted[-1][1], source, wanted[-1:], merged=False)
            except _NeedsLower:
                pass
            else:
                # Twice the same layer: the higher one brings and hides all that the lower one does, and the
                # kernel takes no directory twice.
                return [alone, *(path for path in stack if path != alone)]
        # The lowest layer hides nothing, and needs no marks that say so.
        chain = chain_id([diff_id for _, diff_id in wanted])
        return [self._tree(chain, source, wanted, merged=True)]

    def _tree(self, key: Digest, source: Source, wanted: Sequence[_Wanted], *, merged: bool) -> Path:
        """The tree of one layer, or of several merged, made if it is not there.

        Raises:
            _NeedsLower: the layer can't stand alone.
        """
        target = self._place / f"{'chain' if merged else 'layer'}-{key.algorithm}-{key.hex}"
        refused = target.with_name(f"{target.name}.needs-lower")
        with _locked(target.with_name(f"{target.name}.lock")):
            if not merged and refused.exists():
                raise _NeedsLower
            if not target.exists():
                try:
                    with staging.staged(target, sync=self._options.sync) as private:
                        self._build(private, source, wanted, merged=merged)
                except _NeedsLower:
                    refused.touch()
                    raise
        return target / _TREE

    def _build(self, private: Path, source: Source, wanted: Sequence[_Wanted], *, merged: bool) -> None:
        self._made += 1
        tree = private / _TREE
        tree.mkdir(0o700)
        owners = Given() if self._keep_owner else Single(self._tally)
        devices = self._privileged if self._options.devices is None else self._options.devices
        kind = Applier if merged else _Alone
        fd = os.open(tree, OPEN_DIRECTORY)
        names = twins.watch(fd)
        applier = kind(fd, owners, self._tally, Policy(devices=devices))
        try:
            blobs, diff_ids = [blob for blob, _ in wanted], [diff_id for _, diff_id in wanted]
            with layers.opened(source, blobs, diff_ids, limit=self._options.max_bytes) as streams:
                for stream in streams:
                    try:
                        applier.apply(twins.archive(stream, names, max_entries=self._options.max_entries))
                    except InvalidContent:
                        layers.drain(stream)
                        raise
            applier.finish()
            if merged or applier.describes_root:
                (private / _ROOT).touch()
        finally:
            applier.close()
            if names:
                names.close()


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The name of a stack of layers (image-spec, config.md, "Layer ChainID"); of none, nothing's digest."""
    chain = diff_ids[0] if diff_ids else Digest.of(b"")
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain


def remove_unused(
    cache: Path, bundles: Iterable[Path], *, really: bool, leaving: Callable[[Path], None] | None = None
) -> list[Digest]:
    """Remove the layers that none of these bundles has, or only list them; nobody may be adding some.

    Args:
        cache: the layers' directory.
        bundles: what is still used.
        really: remove them.
        leaving: is told of each tree before it goes.

    Returns:
        The layers' diff IDs, or the chain IDs of those that are kept merged.
    """
    used = {path for bundle in bundles if (stack := Stack.load(bundle)) for path in stack.lowers}
    removed = []
    for place in cache.iterdir():
        staging.collect(place, really=really, leaving=leaving)
    for tree in sorted(cache.glob("*/[!.]*")):
        if str(tree / _TREE) in used:
            continue
        if tree.is_dir():
            _, _, name = tree.name.partition("-")
            removed.append(Digest.parse(name.replace("-", ":", 1)))
            if leaving:
                leaving(tree)
            if really:
                discard(tree)
        elif really:
            tree.unlink()  # a lock that nobody holds, or what is found out again
    return removed


class _Alone(Applier):
    """Applies one layer to an empty root, with its whiteouts as the kernel wants them.

    A removed file is a character device 0:0 (which needs no privilege); a directory that hides what is
    below it has an attribute that says so.
    """

    def __init__(self, fd: int, owners: Owners, tally: Tally, policy: Policy) -> None:
        super().__init__(fd, owners, tally, policy)
        self._meant: list[whiteouts.Whiteout] = []
        self._opaque: set[bytes] = set()
        namespace = b"trusted" if isinstance(owners, Given) and is_host_root() else b"user"
        self._mark_of_opaque = namespace + b".overlay.opaque"

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
        except PermissionError as error:
            raise _NeedsLower from error  # older kernels let only root make the mark

    def _implied(self, path: bytes) -> None:
        raise _NeedsLower(path)

    def _link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        try:
            super()._link(entry, parent, name)
        except InvalidContent as error:
            raise _NeedsLower from error

    def _describe(self, fd: int, entry: Entry, path: bytes) -> None:
        if path in self._opaque:
            try:
                os.setxattr(fd, self._mark_of_opaque, b"y")
            except OSError as error:
                if not is_refusal(error):
                    raise
                raise _NeedsLower from error  # a file system that keeps no such attributes
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
