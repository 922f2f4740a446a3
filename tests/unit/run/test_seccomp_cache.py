"""A filter is taken over from the container before only if it is the very same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocitool.errors import InvalidContent
from ocitool.run import seccomp, seccomp_cache
from ocitool.run.seccomp_cache import Filter


def _linux(*names: str) -> dict[str, Any]:
    rule = {"names": list(names), "action": "SCMP_ACT_ERRNO"}
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The profiles that were really compiled."""
    profiles: list[Any] = []
    compile_filter = seccomp.compile_filter

    def counted(profile: dict[str, Any]) -> Filter:
        profiles.append(profile)
        return compile_filter(profile)

    monkeypatch.setattr(seccomp, "compile_filter", counted)
    return profiles


def _container(root: Path, name: str) -> str:
    (root / name).mkdir()
    return str(root / name)


def test_the_next_container_with_the_same_profile_takes_the_filter(
    tmp_path: Path, compiled: list[Any]
) -> None:
    first = seccomp_cache.make(_container(tmp_path, "a"), _linux("mkdir"))
    second = seccomp_cache.make(_container(tmp_path, "b"), _linux("mkdir"))
    assert len(compiled) == 1
    assert vars(first) == vars(second)
    assert vars(seccomp_cache.load(str(tmp_path / "b"), _linux("mkdir"))) == vars(first)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["filter"]


@pytest.mark.parametrize("other", [_linux("rmdir"), _linux("mkdir", "rmdir"), _linux("rmdir", "mkdir")])
def test_another_profile_is_compiled(tmp_path: Path, compiled: list[Any], other: dict[str, Any]) -> None:
    seccomp_cache.make(_container(tmp_path, "a"), _linux("mkdir"))
    found = seccomp_cache.make(_container(tmp_path, "b"), other)
    assert compiled == [_linux("mkdir")["seccomp"], other["seccomp"]]
    assert found.program == seccomp.compile_filter(other["seccomp"]).program
    assert vars(seccomp_cache.load(str(tmp_path / "b"), other)) == vars(found)
    kept = seccomp_cache.load(str(tmp_path / "a"), _linux("mkdir"))
    assert kept.program == seccomp.compile_filter(_linux("mkdir")["seccomp"]).program


def test_a_profile_that_is_wrong_leaves_no_filter_of_another_one(tmp_path: Path) -> None:
    seccomp_cache.make(_container(tmp_path, "a"), _linux("mkdir"))
    with pytest.raises(InvalidContent):
        seccomp_cache.make(_container(tmp_path, "b"), _linux())
    assert list((tmp_path / "b").iterdir()) == []


def test_another_compiler_compiles_again(
    tmp_path: Path, compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seccomp_cache.make(_container(tmp_path, "a"), _linux("mkdir"))
    monkeypatch.setattr(seccomp_cache, "_COMPILER", ("seccomp.py", "spec.py"))
    seccomp_cache.make(_container(tmp_path, "b"), _linux("mkdir"))
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", [b"", b"junk\n12345678", b"\n"])
def test_a_damaged_file_is_not_taken(tmp_path: Path, compiled: list[Any], damage: bytes) -> None:
    (tmp_path / "~seccomp").write_bytes(damage)
    found = seccomp_cache.make(_container(tmp_path, "a"), _linux("mkdir"))
    assert len(compiled) == 1
    assert found.program
