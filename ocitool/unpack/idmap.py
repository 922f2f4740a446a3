"""Maps of users and groups between a user namespace and the host (user_namespaces(7))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple


class Range(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int

    def to_json(self) -> dict[str, int]:
        """As the runtime configuration has it."""
        return {"containerID": self.inside, "hostID": self.outside, "size": self.size}


@dataclass(frozen=True, slots=True)
class IdMap:
    """How a user namespace's users and groups are mapped."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    @classmethod
    def only_me(cls) -> IdMap:
        """Root is whoever runs this, and nobody else exists: what every kernel allows without a helper."""
        return cls((Range(0, os.geteuid(), 1),), (Range(0, os.getegid(), 1),))

    @property
    def single(self) -> bool:
        """Whether one user and one group are all there is."""
        return sum(part.size for part in (*self.uids, *self.gids)) == 2

    def uids_json(self) -> list[dict[str, int]]:
        """As the runtime configuration has them."""
        return [part.to_json() for part in self.uids]

    def gids_json(self) -> list[dict[str, int]]:
        """As the runtime configuration has them."""
        return [part.to_json() for part in self.gids]
