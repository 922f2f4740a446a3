"""The types that JSON values must have, each told apart in one sentence.

Every function raises InvalidContent if a value has another type; `what` is how the error calls the document.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
"""No annotations; one for all who have none."""


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """An object, as a mapping."""
    if not isinstance(value, dict):
        raise InvalidContent(f"{what} is missing or not an object")
    return value


def items(fields: Mapping[str, Any], key: str, what: str) -> list[Any]:
    """A list under a key, which must be there; null is an empty one."""
    value = fields.get(key, "")
    if value is None:  # what Go writes for a list that has nothing in it
        return []
    if not isinstance(value, list):
        raise InvalidContent(f"{key} of {what} is missing or not a list")
    return value


def string(fields: Mapping[str, Any], key: str, what: str, *, default: str | None = None) -> str:
    """A string under a key; it must be there unless there is a default, and null is as good as absent."""
    value = fields.get(key)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise InvalidContent(f"{key} of {what} is missing or not a string")
    return value


def strings(fields: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    """A list of strings under a key; absent and null are an empty one."""
    value = fields.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidContent(f"{key} of {what} is not a list of strings")
    return tuple(value)


def string_map(fields: Mapping[str, Any], key: str, what: str) -> Mapping[str, str]:
    """An object of strings under a key; absent and null are an empty one."""
    value = fields.get(key)
    if value is None:
        return NOTHING
    # annotations.md: "Annotations MUST be a key-value map where both the key and value MUST be strings."
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidContent(f"{key} of {what} does not map strings to strings")
    return MappingProxyType(value)
