"""A store in memory: for tests, for small documents on their way, and as the shortest example of one."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocitool.digest import Digest
from ocitool.errors import NotFound
from ocitool.model import Descriptor, parse_manifest
from ocitool.reference import is_digest
from ocitool.streams import Reader, VerifiedReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class MemoryStore:
    """Blobs and names in dictionaries.

    Implements Store, Deleter, Referrers and Lister. Safe to use from several threads: every change is one
    assignment, the one that makes content visible comes last, and what is iterated over is a copy.
    """

    def __init__(self) -> None:
        self._content: dict[Digest, bytes] = {}
        self._descriptors: dict[Digest, Descriptor] = {}
        self._tags: dict[str, Descriptor] = {}
        self._referrers: dict[Digest, dict[Digest, Descriptor]] = {}

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        desc = self._descriptors.get(Digest.parse(ref)) if is_digest(ref) else self._tags.get(ref)
        if desc is None:
            raise NotFound(f"nothing in memory is named {ref}")
        return desc

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        content = self._content.get(desc.digest)
        if content is None:
            raise NotFound(f"{desc.digest} is not in memory")
        yield io.BytesIO(content[offset:])

    def exists(self, desc: Descriptor, /) -> bool:
        """See `Store`."""
        return desc.digest in self._content

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        """See `Store`."""
        content = VerifiedReader(stream, desc.digest, desc.size).read()
        if desc.is_manifest:
            manifest = parse_manifest(content, desc)
            if manifest.subject:
                referrer = Descriptor(
                    desc.media_type,
                    desc.digest,
                    desc.size,
                    annotations=manifest.annotations,
                    artifact_type=manifest.kind,
                )
                self._referrers.setdefault(manifest.subject.digest, {})[desc.digest] = referrer
        self._descriptors[desc.digest] = desc
        self._content[desc.digest] = content

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        """See `Store`."""
        if not self.exists(desc):
            raise NotFound(f"{desc.digest} is not in memory, so it can't be tagged {ref}")
        if not is_digest(ref):
            self._tags[ref] = desc

    def untag(self, ref: str, /) -> None:
        """See `Deleter`."""
        if self._tags.pop(ref, None) is None:
            raise NotFound(f"nothing in memory is named {ref}")

    def delete(self, desc: Descriptor, /) -> None:
        """See `Deleter`."""
        if self._content.pop(desc.digest, None) is None:
            raise NotFound(f"{desc.digest} is not in memory")
        self._descriptors.pop(desc.digest, None)
        for ref, named in list(self._tags.items()):
            if named.digest == desc.digest:
                del self._tags[ref]
        for referrers in list(self._referrers.values()):
            referrers.pop(desc.digest, None)

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """See `Referrers`."""
        found = list(self._referrers.get(desc.digest, {}).values())
        return [referrer for referrer in found if artifact_type in {"", referrer.artifact_type}]

    def tags(self) -> Iterable[str]:
        """See `Lister`."""
        return sorted(self._tags)
