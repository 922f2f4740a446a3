"""What strangers sent, made fit to be shown: no control characters, no secrets."""

from __future__ import annotations

import unicodedata
from typing import Final
from urllib.parse import parse_qsl, urlsplit

# Controls, formatting (bidirectional overrides are among them), surrogates, line and paragraph separators.
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# What a query may be shown with; presigned URLs carry their secret in a parameter of any name.
_SHOWN: Final = frozenset({"n", "last", "digest", "mount", "from", "ns", "artifacttype", "scope", "service"})


def printable(text: str, limit: int = 500) -> str:
    """A text that neither moves the cursor nor breaks a line; longer ones are cut."""
    shown = "".join(_escape(char) for char in text[:limit])
    return shown + "…" if len(text) > limit else shown


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _UNPRINTABLE:
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def redacted(url: str) -> str:
    """A URL without user, password, fragment, and the values of parameters that may be secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return "a malformed URL"
    where = f"[{host}]" if ":" in host else host
    shown = "&".join(f"{name}={value if name.lower() in _SHOWN else '…'}" for name, value in query)
    return printable(
        f"{parts.scheme}://{where}{f':{port}' if port else ''}{parts.path}{f'?{shown}' if shown else ''}",
        2000,
    )
