"""What a place on the far side really holds, written down for whoever makes the next bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ocitool.bundle.inventory import Entry, Image, Inventory, bare, split
from ocitool.checking import Fault, check
from ocitool.content import Lister
from ocitool.events import OnEvent, ignore
from ocitool.workers import JOBS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.content import Source
    from ocitool.digest import Digest
    from ocitool.model import Descriptor


@dataclass(frozen=True, slots=True)
class Holding:
    """One store of a place, and the images in it.

    Attributes:
        source: the store.
        images: what to start from.
        repository: the repository that the store is, or "" where one store has them all.
    """

    source: Source
    images: tuple[Image, ...]
    repository: str = ""


@runtime_checkable
class _Rooted(Protocol):
    """A source that keeps content without names as well."""

    def entries(self) -> list[Descriptor]: ...


def images_of(source: Source, repository: str = "") -> tuple[Image, ...]:
    """Every root that a source lists, those without a name included.

    Args:
        source: a place.
        repository: the repository that it is, whose names are tags; "" where names are whole.
    """
    names = list(source.tags()) if isinstance(source, Lister) else []
    images = [
        Image(*((repository, name) if repository else split(name)), bare(source.resolve(name)))
        for name in names
    ]
    if isinstance(source, _Rooted):
        named = {image.root for image in images}
        images += [Image(repository, "", bare(one)) for one in source.entries() if one not in named]
    return tuple(dict.fromkeys(images))


def inventory_of(
    holdings: Iterable[Holding], *, deep: bool = False, jobs: int = JOBS, on_event: OnEvent = ignore
) -> tuple[Inventory, list[Fault]]:
    """Walk what a place has and list what is there and sound.

    Args:
        holdings: the stores of the place.
        deep: read every blob and compare its digest, instead of asking whether it is there.
        jobs: how much is read at once.
        on_event: is told about each piece of content.

    Returns:
        The inventory, and what it leaves out because it is missing or damaged.

    Raises:
        RegistryError: the place can't be asked.
    """
    images: list[Image] = []
    faults: list[Fault] = []
    found: dict[Digest, tuple[Descriptor, set[str]]] = {}
    for holding in holdings:
        roots = {str(image): image.root for image in holding.images}
        report = check(holding.source, roots, deep=deep, sparse=True, jobs=jobs, on_event=on_event)
        faults += report.faults
        images += [image for image in holding.images if image.root.digest in report.sound]
        for digest, desc in report.sound.items():
            found.setdefault(digest, (bare(desc), set()))[1].add(holding.repository)
    entries = [Entry(desc, tuple(sorted(where))) for desc, where in found.values()]
    return Inventory.of(images, entries), faults
