"""Which names are meant: exact ones, globs, regular expressions, ranges of versions, the latest few."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ocitool.digesttags import is_digest_tag
from ocitool.errors import InvalidReference
from ocitool.mirror.semver import Range, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_PATTERN: Final = 1000


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob or a regular expression that has to match a whole name, or anywhere in one."""

    text: str
    expression: re.Pattern[str]
    anywhere: bool = False

    @classmethod
    def glob(cls, text: str) -> Pattern:
        """A shell's pattern: `*`, `?` and `[...]`."""
        return cls(text, re.compile(fnmatch.translate(_bounded(text))))

    @classmethod
    def regex(cls, text: str) -> Pattern:
        """A regular expression.

        Raises:
            InvalidReference: it is none.
        """
        try:
            return cls(text, re.compile(_bounded(text)))
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidReference(f"{text!r:.80} is not a regular expression: {error}") from error

    @classmethod
    def search(cls, text: str) -> Pattern:
        """A regular expression that may match anywhere in a name, as some tools have it.

        Raises:
            InvalidReference: it is none.
        """
        return replace(cls.regex(text), anywhere=True)

    def __contains__(self, name: str) -> bool:
        match = self.expression.search if self.anywhere else self.expression.fullmatch
        return match(name) is not None


def _bounded(text: str) -> str:
    if len(text) > _MAX_PATTERN:
        raise InvalidReference(f"a pattern has {len(text)} characters; at most {_MAX_PATTERN} are read")
    return text


@dataclass(frozen=True, slots=True)
class Names:
    """A choice among names that a registry lists.

    Attributes:
        exact: names or digests that are wanted whether they are listed or not.
        patterns: of these, one has to match.
        ranges: or the name is a version in one of these. Without exact names, patterns and ranges, all match.
        exclude: none of these may match; they say nothing about exact names.
        latest: of what is left, only so many of the highest versions; 0 means all.
    """

    exact: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    ranges: tuple[Range, ...] = ()
    exclude: tuple[Pattern, ...] = ()
    latest: int = 0

    @property
    def listed(self) -> bool:
        """Whether the registry has to be asked for its names."""
        return bool(self.patterns or self.ranges or self.latest or not self.exact)

    def choose(self, names: Iterable[str]) -> list[str]:
        """The names that are meant, sorted; exact ones are among them even where the list lacks them."""
        chosen = (
            [name for name in names if not is_digest_tag(name) and self._takes(name)] if self.listed else []
        )
        if self.latest:
            versions = {name: version for name in chosen if (version := Version.of(name))}
            chosen = sorted(versions, key=lambda name: (versions[name], name))[-self.latest :]
        return sorted({*self.exact, *chosen})

    def _takes(self, name: str) -> bool:
        if any(name in pattern for pattern in self.exclude):
            return False
        if not self.patterns and not self.ranges:
            # "the latest 3" chooses among all; a list of exact names among itself.
            return bool(self.latest) or not self.exact
        if any(name in pattern for pattern in self.patterns):
            return True
        version = Version.of(name) if self.ranges else None
        return version is not None and any(version in span for span in self.ranges)
