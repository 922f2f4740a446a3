"""httpx without its command line, which would load all of rich wherever that is installed.

Whoever needs httpx takes it from here, and inside the function that does: only what a server names (a
redirect, a token realm, an upload's location) is read as a URL, and many runs never see one.
"""

from __future__ import annotations

import sys

# httpx goes on without what can't be imported, which is what None says. Who has loaded it already keeps it.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402 - loaded here, so that the entry can go again

if sys.modules.get("httpx._main") is None:
    del sys.modules["httpx._main"]

__all__ = ["httpx"]
