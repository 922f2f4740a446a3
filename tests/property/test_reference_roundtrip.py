"""References round-trip, and whatever is parsed can be put into a URL as it is."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from property.strategies import references

from ocitool.errors import InvalidReference
from ocitool.reference import Reference

_URL_SAFE = re.compile(r"[A-Za-z0-9._:\[\]-]+(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]+)?(@sha(256|512):[0-9a-f]+)?")


@given(references)
def test_parses_what_it_prints(reference: Reference) -> None:
    again = Reference.parse(str(reference))
    assert str(again) == str(reference)
    assert (again.name, again.ref, again.digest) == (reference.name, reference.ref, reference.digest)
    assert Reference.parse(str(again)) == again


@given(references.map(str), st.integers(0, 300), st.text(max_size=3), st.integers(0, 3))
@example("alpine:1", 8, "\n", 0)
def test_what_is_parsed_is_plain_text_without_surprises(text: str, at: int, put: str, cut: int) -> None:
    spoiled = text[:at] + put + text[at + cut :]
    try:
        reference = Reference.parse(spoiled)
    except InvalidReference:
        return
    assert _URL_SAFE.fullmatch(str(reference))
    assert ".." not in reference.repository.split("/")
    assert Reference.parse(str(reference)).name == reference.name
    if reference.registry != "docker.io":
        assert spoiled.startswith(reference.name)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused_as_one(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert _URL_SAFE.fullmatch(str(reference))
