"""Which manifests of a layout refer to which: the layout keeps no list, so its roots are looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ocitool.content import Source, read_manifest
from ocitool.errors import IntegrityError, InvalidContent, NotFound
from ocitool.layout.index import names

if TYPE_CHECKING:
    from ocitool.digest import Digest
    from ocitool.model import Descriptor


class Subjects:
    """What each manifest refers to; remembered, because content does not change."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[tuple[str, Digest, int], Digest | None] = {}

    def of(self, desc: Descriptor) -> Digest | None:
        """The subject of a manifest; None for content that has none, or that is not there."""
        if not desc.is_manifest:
            return None
        said = desc.media_type, desc.digest, desc.size
        if said not in self._known:
            try:
                manifest = read_manifest(self._source, desc)
            except (NotFound, InvalidContent):
                return None
            self._known[said] = manifest.subject.digest if manifest.subject else None
        return self._known[said]

    def referrers(self, desc: Descriptor, roots: list[Descriptor], artifact_type: str) -> list[Descriptor]:
        """The roots that refer to a manifest, as `Referrers` describes them."""
        found = [self.as_referrer(root) for root in roots if self.of(root) == desc.digest]
        # distribution-spec, "Referrers Tag Schema": the digest with a dash in place of its colon names an
        # index of referrers; some tools keep it in layouts as well.
        fallback = f"{desc.digest.algorithm}-{desc.digest.hex}"
        for root in roots:
            if fallback in names(root) and root.is_index:
                children = read_manifest(self._source, root).children
                found += [self.as_referrer(child) for child in children if self._refers(child, desc.digest)]
        return [one for one in dict.fromkeys(found) if artifact_type in {"", one.artifact_type}]

    def _refers(self, listed: Descriptor, subject: Digest) -> bool:
        """Whether what a list names is what it is named as, and refers to a manifest."""
        try:
            return self.of(listed) == subject
        except IntegrityError:
            return False

    def as_referrer(self, desc: Descriptor) -> Descriptor:
        """A manifest's descriptor with the annotations and the type that a list of referrers shows."""
        manifest = read_manifest(self._source, desc)
        return replace(desc, annotations=manifest.annotations, artifact_type=manifest.kind)
