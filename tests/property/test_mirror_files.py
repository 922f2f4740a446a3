"""Mirror files, ranges and names, whatever is written in them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocitool.errors import InvalidContent, InvalidReference, OciError
from ocitool.mirror import parse
from ocitool.mirror.naming import Template
from ocitool.mirror.patterns import Names, Pattern
from ocitool.mirror.semver import Range, Version
from ocitool.reference import Reference

KEYS = st.sampled_from(
    """version defaults sources skip limits registries image repository registry to tags glob regex semver
    latest exclude platforms sparse referrers digest-tags credentials username-env helper pulls rate jobs sync
    source target type images docker.io""".split()  # noqa: SIM905 - as it is read
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=20),
    st.sampled_from(["1", "alpine:3", "r.example/{tag}"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"a: &a {b: *a}")
@example(b"{<<: [*x]}")
@example(b"\x85")
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with suppress(InvalidContent):
        parse(raw)


@given(DOCUMENTS)
def test_any_structure_is_read_or_refused_with_its_problems(document: Any) -> None:
    with suppress(InvalidContent):
        parse(json.dumps(document).encode(), to="r.example/x")


PARTS = st.integers(0, 12)
PRERELEASES = st.lists(st.sampled_from(["rc", "alpha", "0", "1", "11"]), max_size=2)
VERSIONS = st.builds(
    lambda a, b, c, pre: f"{a}.{b}.{c}" + (f"-{'.'.join(pre)}" if pre else ""),
    PARTS,
    PARTS,
    PARTS,
    PRERELEASES,
)


@given(VERSIONS, VERSIONS)
def test_exactly_one_of_less_equal_and_more_holds(left: str, right: str) -> None:
    a, b = Version.of(left), Version.of(right)
    assert a is not None
    assert b is not None
    assert (a < b) + (a == b) + (a > b) == 1
    assert (a in Range.parse(f"={right}")) == (a == b)


@given(VERSIONS, VERSIONS)
def test_a_range_and_its_complement_share_out_all_versions_that_they_may_hold(
    version: str, bound: str
) -> None:
    parsed = Version.of(version)
    assert parsed is not None
    below, above = Range.parse(f"<{bound}"), Range.parse(f">={bound}")
    allowed = not parsed.prerelease or "-" in bound
    assert (parsed in below) + (parsed in above) == allowed


@given(VERSIONS)
def test_a_caret_and_a_tilde_hold_their_own_bound(version: str) -> None:
    parsed = Version.of(version)
    assert parsed is not None
    assert parsed in Range.parse(f"^{version}")
    assert parsed in Range.parse(f"~{version}")


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    with suppress(InvalidReference):
        Range.parse(text)


TAGS = st.lists(VERSIONS | st.sampled_from(["latest", "edge", "sha256-" + "0" * 64]), unique=True)


@given(TAGS, st.integers(1, 5))
def test_the_latest_are_never_lower_than_what_is_left_out(tags: list[str], count: int) -> None:
    chosen = Names(latest=count).choose(tags)
    versions = {tag: version for tag in tags if (version := Version.of(tag))}
    assert set(chosen) <= set(versions)
    assert len(chosen) == min(count, len(versions))
    left = [version for tag, version in versions.items() if tag not in chosen]
    assert all(versions[tag] >= version for tag in chosen for version in left)


@given(TAGS, st.text("*?[]!1234.", max_size=6))
def test_what_is_excluded_is_never_chosen_and_all_else_is(tags: list[str], glob: str) -> None:
    pattern = Pattern.glob(glob)
    chosen = set(Names(exclude=(pattern,)).choose(tags))
    assert chosen == {tag for tag in tags if tag not in pattern and not tag.startswith("sha256-")}


@given(st.text("abc/{}:tagnamerepositoryregistry.", max_size=30))
def test_a_template_is_refused_when_it_is_read_or_names_a_place(text: str) -> None:
    try:
        template = Template.parse(text)
    except OciError:
        return
    try:
        target = template.target(Reference.parse("up.example/team/app:1"))
    except InvalidReference:
        return  # it was right for another source
    assert target.place
    assert target.name


@pytest.mark.parametrize("text", ["{", "}", "r.example/{}", "{tag", "oci:", "r.example/x@sha256:" + "0" * 64])
def test_templates_that_name_no_place_are_refused(text: str) -> None:
    with pytest.raises(OciError):
        Template.parse(text)
