"""docs/reference/exit-codes.md lists every error with its exit code, and nothing that is not so."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

import pytest
from support.imports import ROOT, modules_below

from ocitool.errors import OciError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()


def _rows() -> list[tuple[str, list[str]]]:
    """The tables' rows: the first cell, and the errors that the row names."""
    cells = [line.strip("|").split("|") for line in TEXT.splitlines() if re.match(r"\| *`?\d", line)]
    return [(row[0].strip(" `"), re.findall(r"`([A-Z]\w+)`", row[1])) for row in cells]


def _subclasses(kind: type[OciError]) -> Iterator[type[OciError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _subclasses(below)


def _errors() -> dict[str, type[OciError]]:
    """Every error of the package, wherever it is defined; those of tests are not meant."""
    for name in modules_below("ocitool"):
        if name.rpartition(".")[2] not in {"_init", "__main__"}:
            importlib.import_module(name)
    return {kind.__name__: kind for kind in _subclasses(OciError) if kind.__module__.startswith("ocitool")}


def test_every_error_is_listed_under_its_code_or_is_a_kind_of_one_that_is() -> None:
    listed = {name: code for code, names in _rows() for name in names}
    for kind in _errors().values():
        name = next(base.__name__ for base in kind.__mro__ if base.__name__ in listed)
        assert listed[name] == str(kind.exit_code), kind


def test_nothing_is_listed_that_does_not_exist() -> None:
    known = _errors()
    assert [name for _, names in _rows() for name in names if name not in known] == []


@pytest.mark.parametrize("code", ["0", "3", "126", "127", "128+n", "130", "143"])
def test_codes_that_are_no_error_of_ours_are_listed_too(code: str) -> None:
    assert code in [listed for listed, _ in _rows()]


def test_codes_stand_once_and_in_order() -> None:
    codes = [code for code, _ in _rows()]
    assert len(set(codes)) == len(codes)
    numbers = [int(code.removesuffix("+n")) for code in codes]
    assert numbers == sorted(numbers)
