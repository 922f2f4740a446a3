"""Commands on the local store, or on any image layout."""

from __future__ import annotations

COMMANDS = ()
