"""JSON from strangers: one loader that accepts only what every parser would read alike."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.limits import JSON_DEPTH

_MAX_NUMBER_DIGITS = 40
# A string is matched whole, so that the brackets inside it do not count; one without an end is matched to
# the end of the text, and nothing is ever given back, so that every character is looked at once.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def loads(raw: bytes, what: str) -> Any:
    """Parse UTF-8 JSON, or say why it can't be trusted.

    Refused beyond the grammar: a key that stands twice (parsers differ in which one wins), NaN and
    Infinity, numbers of absurd length, lone surrogates, a byte order mark, and deep nesting.

    Args:
        raw: the document's bytes.
        what: how to call the document in an error ("manifest sha256:…").

    Raises:
        InvalidContent: the bytes are not such JSON.
        UnsafeContent: they are nested deeper than `limits.JSON_DEPTH`.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidContent(f"{what} is not UTF-8 (byte {error.start})") from error
    _check_depth(text, what)
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _object(pairs, what),
            parse_constant=lambda name: _refuse(f"{what} holds {name}, which is not JSON"),
            parse_int=lambda digits: _integer(digits, what),
            parse_float=lambda digits: _float(digits, what),
        )
    except ValueError as error:
        raise InvalidContent(f"{what} is not JSON: {error}") from error
    # The bytes are valid UTF-8, so a lone surrogate can only come from an escape.
    if "\\ud" in text.lower() and _holds_surrogate(value):
        _refuse(f"{what} holds half of a surrogate pair, which is not Unicode text")
    return value


def load_object(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a document that must be an object.

    Raises:
        InvalidContent: it is not JSON, or not an object.
    """
    value = loads(raw, what)
    if not isinstance(value, dict):
        raise InvalidContent(f"{what} is not a JSON object")
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON with keys in the order given, the same bytes for the same value every time."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _refuse(message: str) -> NoReturn:
    raise InvalidContent(message)


def _check_depth(text: str, what: str) -> None:
    """Count brackets outside strings, before a recursive parser meets them."""
    if text.count("[") + text.count("{") <= JSON_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(text[match.start()], 0)
        if depth > JSON_DEPTH:
            raise UnsafeContent(f"{what} is nested deeper than {JSON_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        _refuse(f"{what} has the key {twice!r:.60} twice")
    return result


def _holds_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, dict):
        return any(_holds_surrogate(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_holds_surrogate(part) for part in value)


def _integer(digits: str, what: str) -> int:
    _check_length(digits, what)
    return int(digits)


def _check_length(digits: str, what: str) -> None:
    if len(digits) > _MAX_NUMBER_DIGITS:
        _refuse(f"{what} holds a number of {len(digits)} digits")


def _float(digits: str, what: str) -> float:
    _check_length(digits, what)
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        _refuse(f"{what} holds the number {digits}, which is out of range")
    return value
