"""What a copy tells whoever watches it.

A listener is called from any thread, must be quick, and may be called again before it has returned.
What it raises ends the copy, which is also how a copy is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from ocitool.model import Descriptor


@dataclass(frozen=True, slots=True)
class Planned:
    """All content under the root is known; the sum of sizes is the most that may have to be moved."""

    descriptors: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """Content starts to move; `offset` bytes of it are held from an earlier run."""

    descriptor: Descriptor
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Advanced:
    """`count` more bytes have moved."""

    descriptor: Descriptor
    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Content is in the destination, or, where it was a layer that is unpacked, applied to the root."""

    descriptor: Descriptor
    how: Literal["copied", "skipped", "mounted", "applied", "checked"]


@dataclass(frozen=True, slots=True)
class Retrying:
    """Something temporary failed and is tried again in `delay` seconds."""

    what: str
    why: str
    delay: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a person should read once: a registry's warning, a fallback taken."""

    message: str


Event: TypeAlias = Planned | Started | Advanced | Finished | Retrying | Noted
OnEvent: TypeAlias = Callable[[Event], None]


def ignore(event: Event, /) -> None:
    """Watch nothing."""
