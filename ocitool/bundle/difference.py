"""What one inventory holds and another does not."""

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
        images: names with what they stood for and stand for now; None where there is no such name.
        added: content that only the second one holds.
        removed: content that only the first one holds.
    """

    images: dict[str, tuple[Digest | None, Digest | None]]
    added: list[Descriptor]
    removed: list[Descriptor]

    def __bool__(self) -> bool:
        return bool(self.images or self.added or self.removed)


def difference(one: Inventory, two: Inventory) -> Difference:
    """Compare two inventories by what they hold themselves."""
    before = {str(image): image.root.digest for image in one.images}
    after = {str(image): image.root.digest for image in two.images}
    names = sorted(before.keys() | after.keys())
    return Difference(
        {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)},
        [entry.descriptor for digest, entry in two.content.items() if digest not in one.content],
        [entry.descriptor for digest, entry in one.content.items() if digest not in two.content],
    )
