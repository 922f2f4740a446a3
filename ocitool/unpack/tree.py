"""An image's file system as data: what unpacking would make, without a disk.

Files are known by the digest of their content, so a tree costs a few hundred bytes of memory for each.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from ocitool import limits
from ocitool.content import read_config, read_manifest
from ocitool.errors import InvalidContent, UnsafeContent, Unsupported
from ocitool.model import Manifest
from ocitool.unpack import layers, whiteouts
from ocitool.unpack.entries import Archive, Entry, Kind, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.content import Source
    from ocitool.model import Descriptor

_MAX_LINKS: Final = 40  # as the kernel has it


class Facts(NamedTuple):
    """What is known of one file, of whatever type; hard links share it.

    Attributes:
        kind: its type.
        mode: permission bits.
        uid: its owner.
        gid: its group.
        size: bytes of content.
        content: the SHA-256 of the content, in hexadecimal; "" of what has none. For a file with holes it is
            taken of its map and of what is between the holes, because those may be terabytes.
        link: a symbolic link's target.
        device: a device's major and minor number.
        xattrs: extended attributes by name.
        mtime: nanoseconds since 1970.
    """

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    content: str = ""
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    mtime: int = 0


@dataclass(slots=True)
class _Node:
    facts: Facts
    layer: int  # which layer it is of, counted from the lowest
    children: dict[bytes, _Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.facts.kind is Kind.DIRECTORY


class Tree:
    """The file system of an image, built layer by layer."""

    def __init__(self) -> None:
        self._root = _Node(Facts(Kind.DIRECTORY), 0)
        self._layer = 0

    def apply(self, archive: Archive) -> None:
        """Apply a layer.

        Raises:
            InvalidContent, UnsafeContent: it can't be applied.
        """
        self._layer += 1
        for entry in archive:
            meaning = whiteouts.meaning(entry.path) if whiteouts.MARK in entry.path else None
            if isinstance(meaning, whiteouts.Whiteout):
                self._hide(meaning)
            elif meaning is None:
                self._add(entry, archive)

    def files(self) -> Iterator[tuple[bytes, Facts]]:
        """Every path but the root's, with what is there, parents first and siblings in order."""
        todo = [(b"", self._root)]
        while todo:
            above, directory = todo.pop()
            below = []
            for name in sorted(directory.children):
                node = directory.children[name]
                path = above + b"/" + name if above else name
                yield path, node.facts
                below.append((path, node))
            todo += reversed(below)

    # Applying

    def _add(self, entry: Entry, archive: Archive) -> None:
        if not entry.path:
            self._root.facts = self._facts(entry, archive)
            return
        above, _, name = entry.path.rpartition(b"/")
        parent = self._directory(above)
        if entry.kind is Kind.HARDLINK:
            self._link(entry, parent, name)
            return
        facts = self._facts(entry, archive)
        known = parent.children.get(name)
        # layer.md: a directory's content survives that its attributes are replaced; nothing else does.
        if known and known.is_directory and facts.kind is Kind.DIRECTORY:
            known.facts, known.layer = facts, self._layer
        else:
            parent.children[name] = _Node(facts, self._layer)

    def _facts(self, entry: Entry, archive: Archive) -> Facts:
        size, content = _content(entry, archive) if entry.kind is Kind.FILE else (0, "")
        return Facts(
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            size,
            content,
            entry.link,
            entry.device,
            tuple(sorted(entry.xattrs)),
            entry.mtime,
        )

    def _link(self, entry: Entry, parent: _Node, name: bytes) -> None:
        above, _, wanted = entry.link.rpartition(b"/")
        if name in parent.children and wanted == name and self._find(above) is parent:
            return  # a second name for itself
        # What is in the way goes first, and may take the target with it.
        parent.children.pop(name, None)
        found = self._find(above)
        target = found.children.get(wanted) if found else None
        if target is None or target.is_directory:
            raise InvalidContent(
                f"{shown(entry.path)} is a hard link to {shown(entry.link)}, which is no file"
            )
        parent.children[name] = _Node(target.facts, self._layer)

    def _hide(self, whiteout: whiteouts.Whiteout) -> None:
        # layer.md: "Whiteout files MUST only apply to resources in lower/parent layers."
        directory = self._find(whiteout.directory) if self._layer > 1 else None
        if directory is None:
            return
        for name in [whiteout.name] if whiteout.name else list(directory.children):
            if name in directory.children and self._is_hidden(directory.children[name]):
                del directory.children[name]

    def _is_hidden(self, node: _Node) -> bool:
        """Take away what lower layers have below a node; whether nothing of this layer is left."""
        for name in [name for name, child in node.children.items() if self._is_hidden(child)]:
            del node.children[name]
        if node.layer == self._layer:
            return False
        # A directory stays for the sake of what this layer has in it, but is not the lower layers' any more.
        node.facts, node.layer = Facts(Kind.DIRECTORY), self._layer
        return not node.children

    # Paths

    def _directory(self, path: bytes) -> _Node:
        """The directory at a path, made where it is missing."""
        found = self._walk(path, make=True)
        if found is None:
            raise InvalidContent(f"there can be no directory {shown(path)}")
        return found

    def _find(self, path: bytes) -> _Node | None:
        return self._walk(path, make=False)

    def _walk(self, path: bytes, *, make: bool) -> _Node | None:
        """Follow a path as the kernel does in a root: links too, and never out."""
        trail = [self._root]
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                del trail[1 if len(trail) == 1 else -1 :]
            if name in {b"", b".", b".."}:
                continue
            node = trail[-1].children.get(name)
            if node and node.facts.kind is Kind.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise UnsafeContent(f"the path {shown(path)} has too many symbolic links")
                if node.facts.link.startswith(b"/"):
                    del trail[1:]
                todo += node.facts.link.split(b"/")[::-1]
                continue
            if node is None or not node.is_directory:
                if not make:
                    return None
                node = trail[-1].children[name] = _Node(Facts(Kind.DIRECTORY), self._layer)
            trail.append(node)
        return trail[-1]


def _content(entry: Entry, archive: Archive) -> tuple[int, str]:
    """A file's size and the digest of its content."""
    hasher = hashlib.sha256()
    if entry.sparse:
        hasher.update(repr(entry.sparse).encode())
    for piece in archive.body():
        hasher.update(piece)
    return (entry.sparse.size if entry.sparse else entry.size), hasher.hexdigest()


def tree(source: Source, image: Descriptor, *, limit: int = limits.DECOMPRESSED_BYTES) -> Tree:
    """Read an image's layers into a tree; blob digests and diff IDs are verified as by `unpack`.

    Raises:
        Unsupported: it is no image, or has layers that can't be read.
        OciError: as `unpack`.
    """
    manifest = read_manifest(source, image)
    if not isinstance(manifest, Manifest):
        raise Unsupported(f"{image.digest} is an index, not an image", hint="choose one of its platforms")
    diff_ids = read_config(source, manifest).diff_ids
    layers.check(manifest.layers, diff_ids)
    result = Tree()
    with layers.opened(source, manifest.layers, diff_ids, limit=limit) as streams:
        for layer, stream in zip(manifest.layers, streams, strict=True):
            try:
                result.apply(Archive(stream))
            except InvalidContent as error:
                error.add_note(f"in layer {layer.digest}")
                layers.drain(stream)
                raise
    return result
