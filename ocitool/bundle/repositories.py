"""A bundle seen as a registry, so that it can be served without being unpacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ocitool.errors import NotFound
from ocitool.layout.repositories import repository_and_tag
from ocitool.reference import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from ocitool.bundle.source import BundleSource
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

DEFAULT: Final = "image"
"""The repository of names that are no more than a tag."""


class BundleRepositories:
    """The repositories of a bundle, for `ocitool.serve`; nothing can be pushed.

    An image of `host/path:tag` is served as `path:tag`, which is what a client asks a mirror of `host` for.
    """

    def __init__(self, bundle: BundleSource) -> None:
        self._bundle = bundle
        self._tags: dict[str, dict[str, Descriptor]] = {}
        for image in bundle.inventory.images:
            found = repository_and_tag(image.name or f"{image.repository}:untagged", DEFAULT)
            if found:
                tags = self._tags.setdefault(found[0], {})
                if image.tag:
                    tags.setdefault(found[1], image.root)

    def names(self) -> Iterable[str]:
        """See `serve.Repositories`."""
        return sorted(self._tags)

    def open(self, name: str, *, create: bool = False) -> _Repository | None:
        """See `serve.Repositories`; all of a bundle's content can be had from each of its repositories."""
        del create  # a bundle does not change
        tags = self._tags.get(name)
        return None if tags is None else _Repository(self._bundle, name, tags)


class _Repository:
    """One repository. Implements Source, Lister and Referrers."""

    def __init__(self, bundle: BundleSource, name: str, tags: dict[str, Descriptor]) -> None:
        self._bundle = bundle
        self._name = name
        self._tags = tags

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`."""
        if is_digest(ref):
            return self._bundle.resolve(ref)
        if ref not in self._tags:
            raise NotFound(f"repository {self._name} has no tag {ref}")
        return self._tags[ref]

    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> AbstractContextManager[Reader]:
        """See `Source`."""
        return self._bundle.fetch(desc, offset=offset)

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        """See `Referrers`."""
        return self._bundle.referrers(desc, artifact_type)

    def tags(self) -> Iterable[str]:
        """See `Lister`."""
        return sorted(self._tags)
