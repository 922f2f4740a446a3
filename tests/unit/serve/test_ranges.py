"""Range headers and entity tags, as functions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocitool.serve.messages import Refused
from ocitool.serve.pull import matches, parse_range


@given(size=st.integers(1, 1000), first=st.integers(0, 2000), last=st.none() | st.integers(0, 2000))
def test_a_range_lies_within_the_content_or_is_refused(size: int, first: int, last: int | None) -> None:
    header = f"bytes={first}-{'' if last is None else last}"
    wanted = range(size)[first : None if last is None else last + 1]
    if not wanted:
        with pytest.raises(Refused) as caught:
            parse_range(header, size)
        assert caught.value.status == 416
    else:
        assert parse_range(header, size) == (wanted[0], wanted[-1] + 1)


@given(size=st.integers(1, 1000), length=st.integers(1, 2000))
def test_a_suffix_is_the_end_of_the_content(size: int, length: int) -> None:
    assert parse_range(f"bytes=-{length}", size) == (max(0, size - length), size)


@given(header=st.text(max_size=30), size=st.integers(0, 100))
def test_any_other_header_is_a_range_refused_or_ignored(header: str, size: int) -> None:
    with contextlib.suppress(Refused):
        part = parse_range(header, size)
        assert part is None or 0 <= part[0] < part[1] <= size


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("", False),
        ("a", False),
    ],
)
def test_an_entity_tag_is_found_in_a_list(condition: str, *, expected: bool) -> None:
    assert matches(condition, '"a"') is expected
