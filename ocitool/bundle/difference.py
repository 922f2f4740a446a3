"""What the images of one inventory need and those of another do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocitool.bundle.inventory import Inventory
    from ocitool.digest import Digest
    from ocitool.model import Descriptor


@dataclass(frozen=True, slots=True)
class Difference:
    """The way from one inventory to another.

    Attributes:
        images: names (digests, of what has none) with what they stood for and stand for now; None where
            there is no such name.
        added: content that only the images of the second one need.
        removed: content that only the images of the first one need.
    """

    images: dict[str, tuple[Digest | None, Digest | None]]
    added: list[Descriptor]
    removed: list[Descriptor]

    def __bool__(self) -> bool:
        return bool(self.images or self.added or self.removed)


def difference(one: Inventory, two: Inventory) -> Difference:
    """Compare two inventories by their images and what those need, here or presumed."""
    before, after = _roots(one), _roots(two)
    old, new = ({**side.content, **side.presumed} for side in (one, two))
    names = sorted(before.keys() | after.keys())
    return Difference(
        {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)},
        [entry.descriptor for digest, entry in new.items() if digest not in old],
        [entry.descriptor for digest, entry in old.items() if digest not in new],
    )


def _roots(inventory: Inventory) -> dict[str, Digest]:
    """What has no name is the same wherever it is kept."""
    return {image.name or str(image.root.digest): image.root.digest for image in inventory.images}
