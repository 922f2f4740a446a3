"""Which tags are meant."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ocitool.errors import InvalidReference
from ocitool.mirror.naming import Template
from ocitool.mirror.patterns import Names, Pattern
from ocitool.mirror.semver import Range, Version
from ocitool.reference import Reference

TAGS = ["1.0.0", "1.2.0", "1.10.0", "2.0.0-rc1", "2.0.0", "latest", "edge", "sha256-" + "0" * 64 + ".sig"]


def test_without_a_choice_all_tags_are_meant_but_those_that_belong_to_an_image() -> None:
    assert Names().choose(TAGS) == sorted(TAGS[:-1])


def test_globs_expressions_and_ranges_add_up_and_exclusions_take_away() -> None:
    names = Names(
        patterns=(Pattern.glob("l*"), Pattern.regex("ed.e")),
        ranges=(Range.parse("~1"),),
        exclude=(Pattern.glob("1.0.*"),),
    )
    assert names.choose(TAGS) == ["1.10.0", "1.2.0", "edge", "latest"]


@pytest.mark.parametrize("choice", [{"patterns": (Pattern.glob("l*"),)}, {"ranges": (Range.parse("<1.1"),)}])
def test_what_no_rule_of_a_choice_fits_is_not_meant(choice: dict[str, Any]) -> None:
    (meant,) = Names(**choice).choose(TAGS)
    assert meant in {"latest", "1.0.0"}
    assert Names(exact=("9",), **choice).choose(TAGS) == sorted(["9", meant])


def test_the_latest_are_the_highest_versions_not_the_last_in_the_alphabet() -> None:
    assert Names(latest=2).choose(TAGS) == ["2.0.0", "2.0.0-rc1"]
    assert Names(ranges=(Range.parse("<2"),), latest=1).choose(TAGS) == ["1.10.0"]


def test_exact_names_are_meant_even_where_the_list_lacks_them() -> None:
    digest = "sha256:" + "1" * 64
    assert Names(exact=("9", digest)).choose([]) == ["9", digest]
    assert not Names(exact=("9",)).listed
    assert Names(exact=("9",), latest=1).choose(TAGS) == ["2.0.0", "9"]


def test_a_regular_expression_has_to_match_the_whole_tag() -> None:
    assert "11.2" not in Pattern.regex(r"1\.2")
    assert "1.23" not in Pattern.regex(r"1\.2")
    assert "11.2-x" in Pattern.search(r"1\.2")
    assert "11.2" not in Pattern.search(r"^1\.2")
    assert "1.2-Alpine" in Pattern.search("(?i)alpine")


@pytest.mark.parametrize("text", ["(", "[a", "*", "x" * 1001, "(?P<a>x)(?P<a>y)", "x{99999999999999999999}"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Pattern.regex(text)


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("1.2.3", "1.2.3 v1.2.3", "1.2.4 1.2.2 1.2.3-rc1"),
        ("1.2", "1.2 1.2.0 1.2.9", "1.3 1.1.9"),
        ("1.x", "1.0 1.99.1", "2.0 0.9"),
        ("*", "0.0.1 99.0", "1.0-rc1"),
        (">=1.2 <2", "1.2 1.99", "2.0 1.1"),
        (">=1.2, <2", "1.2 1.99", "2.0 1.1"),
        (">1.2", "1.3 2", "1.2 1.2.9"),
        (">1.2.3", "1.2.4 1.3", "1.2.3"),
        ("<=1.2", "1.2.9 1.0", "1.3"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("!=1.2.3", "1.2.4 1.2.2", "1.2.3"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3 1.2.2"),
        ("~1", "1.0 1.9", "2.0"),
        ("^1.2.3", "1.2.3 1.9", "2.0 1.2.2"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0.9 0.0.1", "1.0"),
        ("1.2 - 1.4", "1.2 1.4 1.4.9", "1.5"),
        ("1.0 || >=3", "1.0.5 3.1", "2.0"),
        (">=1.2.0-rc1 <1.3", "1.2.0-rc1 1.2.0-rc2 1.2.0", "1.2.0-beta 1.3"),
        ("=1.2.3-rc1", "1.2.3-rc1", "1.2.3 1.2.3-rc2 1.2.3-rc1.1"),
        (">= 3.18", "3.18 3.20.1", "3.17 3.19-alpine edge"),
    ],
)
def test_ranges_hold_what_they_say(span: str, inside: str, outside: str) -> None:
    names = Names(ranges=(Range.parse(span),))
    assert set(names.choose([*inside.split(), *outside.split()])) == set(inside.split())


@pytest.mark.parametrize(
    "text", ["", " ", "what", ">", "1.2.3.4", "1 &&2", "a || b", "||", "=>=1", "1..2", "- 2"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Range.parse(text)


def test_precedence_is_that_of_the_specification() -> None:
    # Semantic Versioning 2.0.0, 11.4, "Example".
    order = (
        "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0"
    )
    versions = [Version.of(text) for text in order.split()]
    assert all(a and b and a < b for a, b in itertools.pairwise(versions))


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text",
    ["oci:/mirror{:{tag}", "oci:/mirror}:{tag}", "oci::{tag}", "not a place", f"down.example/x@{DIGEST}"],
)
def test_what_is_no_template_is_refused_before_anything_is_asked(text: str) -> None:
    with pytest.raises(InvalidReference):
        Template.parse(text)


def test_an_image_without_a_tag_is_the_latest_one() -> None:
    source = Reference.parse("up.example/app")
    assert Template.parse("down.example/{name}").target(source).name == "latest"
