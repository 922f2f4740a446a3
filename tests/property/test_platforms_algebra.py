"""Platforms: one normal form, and candidates in an order that makes sense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from property.strategies import platforms

from ocitool.errors import InvalidReference
from ocitool.platforms import Platform, candidates, runs_on


@given(platforms)
def test_parses_what_it_prints(platform: Platform) -> None:
    assert Platform.parse(str(platform)) == platform


@given(platforms)
def test_normalising_twice_is_normalising_once(platform: Platform) -> None:
    again = Platform(
        platform.os.upper(),
        platform.architecture.upper(),
        platform.variant.upper(),
        platform.os_version,
        platform.os_features,
    )
    assert again == platform


@given(platforms)
def test_a_platform_is_its_own_first_candidate_and_none_comes_twice(wanted: Platform) -> None:
    found = candidates(wanted)
    assert found[0] == wanted
    assert runs_on(wanted, wanted)
    assert len(set(found)) == len(found)
    assert {(p.os, p.architecture, p.os_version) for p in found} == {
        (wanted.os, wanted.architecture, wanted.os_version)
    }


@given(platforms)
def test_what_a_fallback_falls_back_to_the_wanted_falls_back_to(wanted: Platform) -> None:
    found = candidates(wanted)
    for fallback in found:
        assert set(candidates(fallback)) <= set(found)


@given(st.text(max_size=30) | st.text("linuxarm64/v8.:()+", max_size=20))
def test_any_text_is_a_platform_or_refused_as_one(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except InvalidReference:
        return
    assert str(platform).isascii()
    assert Platform.parse(str(platform)) == platform
    assert len(candidates(platform)) < 200
