"""JSON without the start-up cost of `json`, which loads `re`.

The C scanner and string encoder of the standard library do the work. Where a document is wrong, the
slow module is loaded for the sake of its better message.
"""

from __future__ import annotations

import _json

from ocitool.errors import InvalidContent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the C scanner reads its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner clears it after each document

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(name)


_scan = _json.make_scanner(_Context())  # type: ignore[arg-type]  # it asks for attributes, not for a class
_SPACE = " \t\r\n"


def loads(data: bytes, what: str) -> Any:
    """Parse one UTF-8 JSON document.

    Args:
        data: the document.
        what: what it is, for the message.

    Raises:
        InvalidContent: it is not JSON, or not UTF-8.
    """
    try:
        text = data.decode()
        start = len(text) - len(text.lstrip(_SPACE))
        value, end = _scan(text, start)
    except (ValueError, StopIteration, RecursionError, SystemError) as exc:
        # Python 3.11's scanner can say what is wrong only where `json` is loaded, and fails itself
        # (SystemError) where it is not.
        raise InvalidContent(f"{what} is not valid JSON{_reason(data)}") from exc
    if text[end:].strip(_SPACE):
        raise InvalidContent(f"{what} is not valid JSON{_reason(data)}")
    return value


def is_text(value: str) -> bool:
    """Whether a string can be handed to the kernel: JSON can spell NUL, and half of a surrogate pair, too."""
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _reason(data: bytes) -> str:
    import json

    try:
        json.loads(data)
    except (ValueError, RecursionError) as exc:
        return f": {exc}"
    return ""


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON")


_quote = _json.encode_basestring_ascii
# Nothing is looked at twice to find circles, indented, sorted, left out or passed where it is not JSON.
_encode = _json.make_encoder(None, _refuse, _quote, None, ":", ",", False, False, False)


def dumps(value: Any) -> str:
    """Write `value` (dicts with string keys, lists, strings, numbers, booleans, None) as JSON."""
    return "".join(_encode(value, 0))
