"""Digests round-trip, and nothing but a digest is one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from property.strategies import digests

from ocitool.digest import Digest
from ocitool.errors import OciError

_SAFE = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@given(digests)
def test_parses_what_it_prints(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert _SAFE.fullmatch(str(digest))


@given(digests.map(str), st.integers(0, 140), st.text(max_size=2), st.integers(0, 2))
def test_what_is_parsed_is_safe_in_a_path_and_a_url(text: str, at: int, put: str, cut: int) -> None:
    spoiled = text[:at] + put + text[at + cut :]
    try:
        digest = Digest.parse(spoiled)
    except OciError:
        return
    assert str(digest) == spoiled
    assert _SAFE.fullmatch(spoiled)
