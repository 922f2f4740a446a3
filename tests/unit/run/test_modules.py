"""Our own finder and loader: the same modules as by the standard ones, found and read with less."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ocitool.run.modules import Finder

BYTECODE = py_compile.PycInvalidationMode


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a package `ocitool` that has one module, compiled."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for directory in (tmp_path / "ocitool", tmp_path / "ocitool" / "other"):
        directory.mkdir()
        (directory / "__init__.py").touch()
    written(tmp_path, "compiled")
    py_compile.compile(str(source(tmp_path)), doraise=True)
    return tmp_path


def source(place: Path) -> Path:
    return place / "ocitool" / "part.py"


def written(place: Path, value: str) -> None:
    source(place).write_text(f"VALUE = {value!r}\n")


def compiled(place: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source(place))))


def loaded(place: Path) -> Any:
    spec = Finder(str(place)).find_spec("ocitool.part", None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def test_what_is_compiled_is_used_while_the_source_is_the_same(place: Path) -> None:
    before = source(place).stat()
    written(place, "changed!")  # of the same length
    os.utime(source(place), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert loaded(place).VALUE == "compiled"


@pytest.mark.parametrize("later", [0, 5], ids=["other size", "other time"])
def test_a_changed_source_is_compiled_again(place: Path, later: int) -> None:
    before = source(place).stat()
    written(place, "changed!" if later else "longer than before")
    moment = before.st_mtime_ns + later * 10**9
    os.utime(source(place), ns=(moment, moment))
    assert loaded(place).VALUE != "compiled"
    # And kept, so that the next one is as fast.
    assert compiled(place).read_bytes()[8:12] == (moment // 10**9).to_bytes(4, "little")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"\0" * 64, importlib.util.MAGIC_NUMBER],
    ids=["empty", "short", "of another version", "nothing but the version"],
)
def test_what_is_no_bytecode_of_this_interpreter_is_not_used(place: Path, content: bytes) -> None:
    compiled(place).write_bytes(content)
    assert loaded(place).VALUE == "compiled"


def test_bytecode_that_knows_its_source_by_a_hash_is_left_to_the_standard_loader(place: Path) -> None:
    py_compile.compile(str(source(place)), doraise=True, invalidation_mode=BYTECODE.CHECKED_HASH)
    written(place, "changed!")
    assert loaded(place).VALUE == "changed!"


def test_a_module_without_bytecode_is_compiled(place: Path) -> None:
    compiled(place).unlink()
    assert loaded(place).VALUE == "compiled"
    assert compiled(place).exists()


def test_a_module_that_is_larger_compiled_than_expected_is_loaded_all_the_same(place: Path) -> None:
    source(place).write_text("VALUE = [*range(9)]\n" + "x = lambda: 0\n" * 1000)
    py_compile.compile(str(source(place)), doraise=True)
    assert compiled(place).stat().st_size > 4 * source(place).stat().st_size
    assert len(loaded(place).VALUE) == 9


def test_a_module_is_the_same_as_by_the_standard_finder(place: Path) -> None:
    ours = loaded(place)
    spec = importlib.util.spec_from_file_location("ocitool.part", source(place))
    assert spec is not None
    standard: ModuleType = importlib.util.module_from_spec(spec)
    names = ("__name__", "__file__", "__cached__", "__package__", "__doc__")
    assert [getattr(ours, name, None) for name in names] == [getattr(standard, name, None) for name in names]
    assert not hasattr(ours, "__path__")


def test_the_runtimes_own_packages_are_found_with_their_modules(place: Path) -> None:
    spec = Finder(str(place)).find_spec("ocitool", None)
    assert spec is not None
    assert spec.submodule_search_locations == [f"{place}/ocitool"]
    assert spec.origin == f"{place}/ocitool/__init__.py"


@pytest.mark.parametrize("name", ["os", "ocitool_plugin", "ocitool.missing", "ocitool.other"])
def test_everything_else_is_left_to_the_standard_finders(place: Path, name: str) -> None:
    assert Finder(str(place)).find_spec(name, None) is None


def test_nothing_is_found_in_a_file_of_modules(place: Path) -> None:
    archive = place / "ocitool.pyz"
    archive.touch()
    assert Finder(str(archive)).find_spec("ocitool.part", sys.path) is None
