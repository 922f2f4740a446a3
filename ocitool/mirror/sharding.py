"""Several machines, one mirror file: who does what, without anyone to ask."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool.errors import InvalidReference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocitool.mirror.items import Item
    from ocitool.mirror.naming import Target
    from ocitool.mirror.plans import Pin

# Kubernetes counts the pods of an Indexed Job from 0 and does not tell them how many they are: the manifest
# in deploy/ does. GitLab's parallel jobs count from 1.
_VARIABLES = (("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", 0), ("CI_NODE_INDEX", "CI_NODE_TOTAL", 1))


@dataclass(frozen=True, slots=True)
class Shard:
    """The number-th of `total` parts, counted from 1."""

    number: int = 1
    total: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total <= 10_000:
            raise InvalidReference(f"there is no shard {self.number} of {self.total}")

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str]) -> Shard:
        """Read `I/N`, or `auto` for what Kubernetes or the CI system says.

        Raises:
            InvalidReference: it is neither, or the environment says nothing.
        """
        if text == "auto":
            return cls._found(environ)
        match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
        if match is None:
            raise InvalidReference(f"{text!r:.40} is not a shard, as 2/4 or auto")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _found(cls, environ: Mapping[str, str]) -> Shard:
        for index, total, first in _VARIABLES:
            if index in environ:
                numbers = environ[index], environ.get(total, "")
                if not all(re.fullmatch(r"[0-9]{1,5}", number) for number in numbers):
                    raise InvalidReference(f"{index} is set and {total} is not, or they are no numbers")
                return cls(int(numbers[0]) + 1 - first, int(numbers[1]))
        names = " nor ".join(name for name, _, _ in _VARIABLES)
        raise InvalidReference(f"--shard auto found neither {names} in the environment")

    def takes(self, item: Item, pins: Mapping[Target, Pin] | None = None) -> bool:
        """Whether an image is in this part.

        In a replay, the digest decides: names of the same content stay together, and it moves once. Without
        a lock file a tag may move between two machines' looks at it; then its source's name decides, so that
        every image is in exactly one part whatever happens.
        """
        pin = (pins or {}).get(item.target)
        key = str(pin.root.digest) if pin else str(item.source)
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        return number % self.total == self.number - 1
