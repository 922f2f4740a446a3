"""Versions and ranges of them, as tags write them: `v1.2.3`, `1.2`, `3.18-rc1`; `>=1.2 <2 || ~3.1`.

Precedence is that of Semantic Versioning 2.0.0; missing parts count as 0. The ranges are those that mirror
tools share: a range that names no pre-release takes none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

from ocitool.errors import InvalidReference

# Semantic Versioning forbids leading zeros; tags that are dates have them, and mean what they look like.
_NUMBER = r"[0-9]{1,18}"
_REST = r"(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
_VERSION: Final = re.compile(rf"v?({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?{_REST}")
_PART = rf"(?:{_NUMBER}|[xX*])"
_TERM: Final = re.compile(
    rf"\s*(!=|>=|=>|<=|=<|=|>|<|~>?|\^)?\s*v?({_PART})(?:\.({_PART}))?(?:\.({_PART}))?{_REST}"
    r"\s*(?:,|(?=\s|$|[<>=!~^]))"
)
_HYPHEN: Final = re.compile(r"(\S+)\s+-\s+(\S+)")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version; equal where neither precedes the other."""

    numbers: tuple[int, int, int]
    prerelease: tuple[str, ...] = ()

    @classmethod
    def of(cls, tag: str) -> Version | None:
        """The version that a tag is, or None."""
        match = _VERSION.fullmatch(tag)
        if match is None:
            return None
        numbers = (int(match[1]), int(match[2] or 0), int(match[3] or 0))
        return cls(numbers, tuple(match[4].split(".")) if match[4] else ())

    def _key(self) -> tuple[object, ...]:
        # Semantic Versioning 2.0.0, 11: "Identifiers consisting of only digits are compared numerically",
        # "Numeric identifiers always have lower precedence than non-numeric identifiers", and a
        # pre-release precedes its release.
        parts = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in self.prerelease)
        return (self.numbers, not self.prerelease, parts)

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()


@dataclass(frozen=True, slots=True)
class _Span:
    """Versions from `low` (inclusive) to `high` (exclusive); `inverted` means all others."""

    low: Version
    high: Version | None
    inverted: bool = False

    def holds(self, version: Version) -> bool:
        inside = self.low <= version and (self.high is None or version < self.high)
        return inside != self.inverted


@dataclass(frozen=True, slots=True)
class Range:
    """A set of versions, written as alternatives of spans that must all hold."""

    text: str
    alternatives: tuple[tuple[_Span, ...], ...]
    prereleases: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range.

        Raises:
            InvalidReference: it does not follow the grammar.
        """
        alternatives = tuple(_conjunction(part, text) for part in text.split("||"))
        return cls(text, alternatives, any(match[5] for part in text.split("||") for match in _terms(part)))

    def __contains__(self, version: Version) -> bool:
        if version.prerelease and not self.prereleases:
            return False
        return any(all(span.holds(version) for span in spans) for spans in self.alternatives)


def _terms(text: str) -> list[re.Match[str]]:
    """The terms, or none of them where there is something else between."""
    text = _HYPHEN.sub(r">=\1 <=\2", text.strip())
    found, position = [], 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            return []
        found.append(match)
        position = match.end()
    return found


def _conjunction(part: str, whole: str) -> tuple[_Span, ...]:
    terms = _terms(part)
    if not terms:
        raise InvalidReference(f"{whole!r:.80} is not a range of versions, as >=1.2 <2 or ~3.1")
    return tuple(_span(term) for term in terms)


def _span(term: re.Match[str]) -> _Span:  # noqa: PLR0911 - one return for each operator
    operator = {"=>": ">=", "=<": "<=", "~>": "~"}.get(term[1] or "=", term[1] or "=")
    given = [part for part in (term[2], term[3], term[4]) if part is not None]
    wild = next((i for i, part in enumerate(given) if part in "xX*"), None)
    numbers = [int(part) for part in given[:wild]]
    padded = (*numbers, 0, 0, 0)[:3]
    low = Version((padded[0], padded[1], padded[2]), tuple(term[5].split(".")) if term[5] else ())
    # The part whose increment ends the span that the text names: `1.2` is all of 1.2.x.
    after = _bumped(low, len(numbers))
    exact = len(numbers) == 3
    lowest = Version((0, 0, 0), ("0",))
    past = Version(low.numbers, (*low.prerelease, "0")) if low.prerelease else _bumped(low, 3)
    upper = past if exact else after
    match operator:
        case "=" | "!=":
            return _Span(low if numbers else lowest, upper, inverted=operator == "!=")
        case ">=":
            return _Span(low, None)
        case ">":
            return _Span(upper or low, None, inverted=upper is None)
        case "<":
            return _Span(lowest, low)
        case "<=":
            return _Span(lowest, upper)
        case "~":
            return _Span(low, _bumped(low, min(len(numbers), 2)))
        case _:
            leading = next((i for i, number in enumerate(numbers) if number), len(numbers) - 1)
            return _Span(low, _bumped(low, leading + 1))


def _bumped(version: Version, parts: int) -> Version | None:
    """The first version past all that share the leading parts; None where there is no end."""
    if parts <= 0:
        return None
    numbers = [*version.numbers[: parts - 1], version.numbers[parts - 1] + 1, 0, 0][:3]
    # Its own pre-releases are past the end too: ^1.2 does not take 2.0.0-rc1.
    return Version((numbers[0], numbers[1], numbers[2]), ("0",))
