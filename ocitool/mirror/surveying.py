"""Finding out what a destination lacks, by questions and by reading as few manifests as can be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ocitool import limits, mediatypes
from ocitool.content import read_manifest
from ocitool.errors import NotFound, UnsafeContent
from ocitool.mirror.plans import Work
from ocitool.mirror.reading import asked
from ocitool.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.mirror.plans import Image
    from ocitool.mirror.reading import Reading
    from ocitool.model import Descriptor
    from ocitool.platforms import Platform


class Survey:
    """Finds what a destination lacks of a few graphs of content."""

    def __init__(self, reading: Reading, has_blob: Callable[[Descriptor], bool]) -> None:
        self._reading = reading
        self._has_blob = has_blob
        self._manifests: dict[Digest, Descriptor] = {}
        self._leaves: dict[Digest, Descriptor] = {}
        self._pulls: dict[Digest, None] = {}
        self._seen: set[Digest] = set()

    def select(self, image: Image) -> Image:
        """Say which platforms an image has, and which entries of its index are left out."""
        root, wanted = image.pin.root, image.item.options.platforms
        if not wanted:
            return image
        self._note(root)
        has = tuple(platform for platform in wanted if self._has(root, platform))
        if not has:
            names = ", ".join(map(str, wanted))
            raise NotFound(f"{image.source} has none of the platforms {names}")
        left_out = select(self._reading, root, Selection(has, sparse=True)).left_out
        return replace(
            image, platforms=has, left_out=left_out, lacks=tuple(p for p in wanted if p not in has)
        )

    def _has(self, root: Descriptor, platform: Platform) -> bool:
        try:
            select(self._reading, root, Selection((platform,), sparse=True))
        except NotFound:
            return False
        return True

    def acceptable(self, image: Image) -> set[Digest]:
        """The digests that the target may have at the destination when nothing is to be done."""
        root = image.pin.root
        if not image.left_out:
            return {root.digest}
        smaller = select(self._reading, root, image.selection(sparse=False)).root.digest
        return {"never": {smaller}, "always": {root.digest}, "auto": {smaller, root.digest}}[
            image.item.options.sparse
        ]

    def whole(
        self, root: Descriptor, left_out: frozenset[Digest], *, known: bool = False
    ) -> list[Descriptor]:
        """Note what is missing under a root; `known` says that the destination has the root itself.

        Returns:
            The manifests under the root that are meant, the root included.

        Raises:
            UnsafeContent: they are nested too deep, or too many.
        """
        found: list[Descriptor] = []
        level, depth = [root], 0
        while level:
            depth += 1
            if depth > limits.INDEX_NESTING or len(found) > limits.INDEX_ENTRIES:
                raise UnsafeContent(f"{root.digest} is nested too deep, or names too many manifests")
            found += level
            # What the root leaves out may well be named again by what it keeps.
            level = [
                child
                for desc in level
                for child in self._below(desc, left_out if desc == root else (), known=known and desc == root)
            ]
        return found

    def _below(self, desc: Descriptor, left_out: Collection[Digest], *, known: bool) -> list[Descriptor]:
        """Note what is missing of a manifest and its leaves; the manifests below it that are new.

        A manifest that is there has all that it names: a registry takes it only then. An index may be sparse.
        """
        there = known or self._reading.is_there(desc)
        if not there:
            self._manifests[desc.digest] = desc
            self._note(desc)
        elif not desc.is_index:
            return []
        manifest = read_manifest(self._reading, desc)
        children = {child.digest: child for child in manifest.children if child.digest not in left_out}
        new = [child for digest, child in children.items() if digest not in self._seen]
        self._seen.update(children)
        for child in new:
            if not child.is_manifest and not mediatypes.is_nondistributable(child.media_type):
                self._leaves[child.digest] = child
        return [child for child in new if child.is_manifest]

    def _note(self, desc: Descriptor) -> None:
        """Note a manifest that has to be read, and that the destination can't give."""
        if not self._reading.is_there(desc):
            self._pulls[desc.digest] = None

    def tagged(self, tags: Mapping[str, Descriptor], destination: Source) -> bool:
        """Note what is missing under digest tags; say whether all of them are as they should be."""
        right = True
        for tag, desc in tags.items():
            known = asked(destination, tag) == desc
            right &= known
            self.whole(desc, frozenset(), known=known)
        return right

    def work(self) -> Work:
        """What is missing."""
        blobs = [leaf for leaf in self._leaves.values() if not self._has_blob(leaf)]
        return Work(tuple(self._manifests.values()), tuple(blobs), pulls=tuple(self._pulls))
