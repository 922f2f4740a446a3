"""Waiting for what happens by and by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something hangs: whatever is merely slow has happened long before."""


def until(condition: Callable[[], T]) -> T:
    """Look again and again until a condition holds; gives what it gave."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
    return found
