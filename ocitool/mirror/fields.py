"""Fields of a file that a person wrote, read strictly: every problem is collected, with its path."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from ocitool.errors import InvalidContent, OciError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_TRUTH: Final = {"true": True, "false": False}
_SHOWN: Final = 20


class Problems:
    """What is wrong with a file, in the order of the file."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.found: list[str] = []

    def add(self, path: str, message: str, line: int = 0) -> None:
        """Note one."""
        where = f"{path} (line {line})" if line else path
        self.found.append(f"{where}: {message}" if where else message)

    def raise_any(self) -> None:
        """End with all of them.

        Raises:
            InvalidContent: there are some; each is a note.
        """
        if not self.found:
            return
        count = len(self.found)
        error = InvalidContent(f"{self.what} has {count} problem{'s' if count > 1 else ''}")
        for problem in self.found[:_SHOWN]:
            error.add_note(problem)
        if count > _SHOWN:
            error.add_note(f"and {count - _SHOWN} more")
        raise error


class Field:
    """A value, where it stands, and where its problems go.

    A reader that finds a problem notes it and returns its default, so that reading goes on.
    """

    def __init__(self, value: Any, path: str, problems: Problems) -> None:
        self.value = value
        self.path = path
        self.problems = problems

    def problem(self, message: str) -> None:
        """Note a problem here."""
        self.problems.add(self.path, message, getattr(self.value, "line", 0))

    def fields(self, *known: str) -> dict[str, Field]:
        """The fields of a mapping by name; names other than the known ones are problems."""
        result = dict(self.entries())
        for name, unknown in list(result.items()):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; is it `{near[0]}`?" if near else f"; known are {', '.join(known)}"
                unknown.problems.add(unknown.path, f"unknown field{hint}", getattr(name, "line", 0))
                del result[name]
        return {name: field for name, field in result.items() if field.value is not None}

    def entries(self) -> Iterator[tuple[str, Field]]:
        """The pairs of a mapping whose keys are free."""
        if not isinstance(self.value, dict):
            self.problem("must be a mapping")
            return
        for key, value in self.value.items():
            yield key, Field(value, f"{self.path}.{key}" if self.path else key, self.problems)

    def items(self) -> Iterator[Field]:
        """The items of a list; one that stands alone is a list of one."""
        if isinstance(self.value, dict):
            self.problem("must be a list")
        elif isinstance(self.value, list):
            for i, value in enumerate(self.value):
                yield Field(value, f"{self.path}[{i}]", self.problems)
        elif self.value is not None:
            yield self

    def text(self, default: str = "") -> str:
        """Text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.problem("must be text")
            return default
        return str(self.value)

    def texts(self) -> tuple[str, ...]:
        """A list of texts, or one."""
        return tuple(text for item in self.items() if (text := item.text()))

    def boolean(self, *, default: bool) -> bool:
        """`true` or `false`, not quoted."""
        if isinstance(self.value, str) and getattr(self.value, "plain", True):
            found = _TRUTH.get(self.value.lower())
            if found is not None:
                return found
        self.problem(f"{_shown(self.value)} is neither true nor false")
        return default

    def integer(self, default: int, *, least: int = 0, most: int = 1_000_000) -> int:
        """A whole number within bounds."""
        if isinstance(self.value, str) and re.fullmatch(r"-?[0-9]{1,9}", self.value):
            number = int(self.value)
            if least <= number <= most:
                return number
        self.problem(f"{_shown(self.value)} is not a number from {least} to {most}")
        return default

    def choice(self, *options: str) -> str:
        """One of a few words; the first is the default."""
        if isinstance(self.value, str) and self.value in options:
            return str(self.value)
        self.problem(f"{_shown(self.value)} is none of {', '.join(options)}")
        return options[0]

    def parsed(self, parse: Callable[[str], T], default: T) -> T:
        """Text that a parser understands; what the parser says is the problem."""
        text = self.text()
        if not text:
            return default
        try:
            return parse(text)
        except OciError as error:
            self.problem(error.message)
            return default

    def all_parsed(self, parse: Callable[[str], T]) -> tuple[T, ...]:
        """A list, each item as `parsed`."""
        results = (item.parsed(parse, None) for item in self.items())
        return tuple(result for result in results if result is not None)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    return repr(None if value is None else str(value))[:60]
