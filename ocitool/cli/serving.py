"""The embedded registry."""

from __future__ import annotations

COMMANDS = ()
