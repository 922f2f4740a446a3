"""Subordinate ids (subuid(5)) and the record of owners."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocitool.errors import InvalidContent
from ocitool.unpack.idmap import IdMap, Range, subordinate
from ocitool.unpack.owners import decode, encode

if TYPE_CHECKING:
    from pathlib import Path


def test_ranges_are_ours_by_name_or_number_and_follow_each_other(tmp_path: Path) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    path = tmp_path / "subuid"
    path.write_text(
        f"# nobody\nother:1:2\n{name}:100000:65536\n{os.geteuid()}:900000:5\n"
        f"{name}:x:y\n{name}:1:0\n{name}:5\n\n"
    )
    assert subordinate(path) == (Range(1, 100_000, 65536), Range(65537, 900_000, 5))
    assert subordinate(tmp_path / "gone") == ()


def test_without_helpers_there_is_only_me(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert IdMap.delegated() is None
    assert IdMap.only_me().single


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_a_recorded_owner_is_read_back(uid: int, gid: int) -> None:
    assert decode(encode(uid, gid)) == (uid, gid)


@given(st.binary(max_size=20))
def test_any_record_is_read_or_not(record: bytes) -> None:
    found = decode(record)
    assert found is None or all(0 <= number < 2**32 for number in found)


def test_records_are_those_of_other_rootless_tools() -> None:
    assert encode(0, 42) == b"\x08\xff\xff\xff\xff\x0f\x10*"
    assert encode(1000, 1000) == b"\x08\xe8\x07\x10\xe8\x07"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0:1",
        "0:1:0",
        "0:1:x",
        "-1:0:1",
        "0:1:2:3",
        "0:4294967295:1",
        "1:0:4294967295",
        "\N{ARABIC-INDIC DIGIT ONE}:1:1",
    ],
)
def test_a_range_that_maps_no_ids_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent, match="INSIDE:OUTSIDE:SIZE"):
        Range.parse(text)


@given(st.integers(0, 100), st.integers(0, 100))
def test_who_is_outside_is_inside_again(uid: int, gid: int) -> None:
    ids = IdMap((Range.parse("0:1000:50"), Range.parse("50:5:51")), (Range.parse("0:9:101"),))
    outside = ids.outside(uid, gid)
    assert outside == (uid + 1000 if uid < 50 else uid - 45, gid + 9)
    assert ids.inside(*outside) == (uid, gid)


def test_a_range_of_many_is_not_a_single_id() -> None:
    assert not IdMap((Range(0, 1, 2),), (Range(0, 1, 2),)).single
