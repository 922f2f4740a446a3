"""What is served: repositories, each a source or a store of content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ocitool.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.content import Source, Store


class Repositories(Protocol):
    """A registry's content: repositories by name.

    Every method may be called from several threads at once. What `open` gives resolves a digest of any
    content that the repository has, blobs as well as manifests, to a descriptor with the right size, and
    nothing that it has lost; a media type that it does not know is `application/octet-stream`. A reader
    that is an `io.FileIO` may be sent by the kernel, from where it stands.
    """

    def names(self) -> Iterable[str]:
        """The names of the repositories there are, in any order."""
        ...

    def open(self, name: str, *, create: bool = False) -> Store | Source | None:
        """A repository; None where there is none of that name and none is to be created.

        What is no Store can only be pulled from.
        """
        ...


@runtime_checkable
class Tended(Protocol):
    """Repositories that have to be looked after while they are served."""

    def tend(self) -> None:
        """Do what is due; to be called about every second, by one thread."""
        ...


class FixedRepositories:
    """Repositories from a dictionary, for whoever has stores in hand; none can be created."""

    def __init__(self, stores: Mapping[str, Store | Source]) -> None:
        self._stores = stores

    def names(self) -> Iterable[str]:
        """See `Repositories`."""
        return list(self._stores)

    def open(self, name: str, *, create: bool = False) -> Store | Source | None:
        """See `Repositories`."""
        found = self._stores.get(name)
        if found is None and create:
            raise NotFound(f"there is no repository {name} here, and none can be created")
        return found
