"""Header fields, read."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from ocitool.registry import headers
from ocitool.registry.headers import Challenge, ContentRange, RateLimit

BEARER = Challenge(
    "bearer", {"realm": "https://auth.example/token", "service": "reg", "scope": "a:b:pull,push"}
)
BEARER_TEXT = 'Bearer realm="https://auth.example/token",service="reg",scope="a:b:pull,push"'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([BEARER_TEXT], [BEARER]),
        (["bEaReR REALM=x"], [Challenge("bearer", {"realm": "x"})]),
        (['Basic realm="a, b"'], [Challenge("basic", {"realm": "a, b"})]),
        (['Basic realm="a \\"b\\" \\\\"'], [Challenge("basic", {"realm": 'a "b" \\'})]),
        ([f"Basic realm=x, {BEARER_TEXT}"], [Challenge("basic", {"realm": "x"}), BEARER]),
        ([f"Negotiate, {BEARER_TEXT}"], [Challenge("negotiate"), BEARER]),
        ([f"Negotiate YWJj==, {BEARER_TEXT}"], [Challenge("negotiate"), BEARER]),
        ([BEARER_TEXT, "Basic realm=x"], [BEARER, Challenge("basic", {"realm": "x"})]),
        (["Basic realm = x , charset = UTF-8"], [Challenge("basic", {"realm": "x", "charset": "UTF-8"})]),
        (["Bearer realm=first, realm=second"], [Challenge("bearer", {"realm": "first"})]),
        ([",, ,Basic,,"], [Challenge("basic")]),
        ([""], []),
        (["="], []),
        ([f"{' ' * (16 << 10)}{BEARER_TEXT}"], []),
        (['"quoted, only"'], []),
    ],
)
def test_challenges_are_told_apart(values: list[str], expected: list[Challenge]) -> None:
    assert headers.challenges(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['</v2/a/tags/list?n=2&last=b>; rel="next"'], "/v2/a/tags/list?n=2&last=b"),
        (["<https://x/y>; rel=next"], "https://x/y"),
        (['<a>; rel="prev", <b>; title="x, <c>"; rel="next"'], "b"),
        (['<a>; rel="last next"'], "a"),
        (["<a>; REL=NEXT"], "a"),
        (["<a>; rel=prev", "<b>; rel=next"], "b"),
        (['<a>; rel="prev"'], ""),
        (["<a>"], ""),
        (["a; rel=next"], ""),
        (["<a; rel=next"], ""),
        ([f"{' ' * (16 << 10)}<a>; rel=next"], ""),
        ([], ""),
    ],
)
def test_the_next_page_is_found(values: list[str], expected: str) -> None:
    assert headers.next_link(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["bytes 0-9/10"], ContentRange(0, 9, 10)),
        (["BYTES 5-9/*"], ContentRange(5, 9, None)),
        (["bytes 9-5/10"], None),
        (["bytes 0-10/10"], None),
        (["bytes */10"], None),
        (["bytes 0-9/10", "bytes 0-9/10"], None),
        (["bytes -1-9/10"], None),
        (["bytes 0-9"], None),
        (["bytes 0-9/10, 20-29/30"], None),
        (["bytes \u0660-\u0669/10"], None),
        (["bytes " + "9" * 30 + "-" + "9" * 31 + "/*"], None),
        ([], None),
    ],
)
def test_a_content_range_is_read_strictly(values: list[str], expected: ContentRange | None) -> None:
    assert headers.content_range(values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0-99", 100),
        ("bytes=0-99", 100),
        ("0-0", 0),
        ("1-99", None),
        ("99", None),
        ("0-", None),
        ("0--1", None),
        ("0-99, 200-299", None),
    ],
)
def test_the_range_of_an_upload_says_how_much_there_is(value: str, expected: int | None) -> None:
    assert headers.upload_offset(value) == expected


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"retry-after": "5"}, 5),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": str(int(NOW) + 60)}, 60),
        ({"x-retry-after": str(int(NOW) + 60)}, 60),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1000000000"}, None),
        ({"retry-after": "in a while"}, None),
        ({"retry-after": "5 or so"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}, None),
        ({"retry-after": "Fri, 99 Foo 9999 99:99:99 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_in_every_form(fields: dict[str, str], expected: float | None) -> None:
    assert headers.retry_after(fields, NOW) == expected


def test_only_warnings_of_registries_are_shown() -> None:
    values = [
        '299 - "one", 299 - "t\\"wo"',
        '199 - "no"',
        '299 host "no"',
        "299 - unquoted",
        '299 - "\x1b[0m"',
    ]
    assert headers.warnings(values) == ["one", 't"wo', "\\x1b[0m"]


def test_warnings_are_cut_where_the_specification_ends_them() -> None:
    assert sum(map(len, headers.warnings([f'299 - "{"x" * 100}"'] * 100))) <= 4096


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("100;w=21600", "76;w=21600", RateLimit(100, 76, 21600)),
        ("100", "0", RateLimit(100, 0, 0)),
        ("100", "", None),
        ("", "76", None),
        ("100x", "76", None),
        ("100", "76x", None),
        ("many", "few", None),
    ],
)
def test_a_quota_is_read(limit: str, remaining: str, expected: RateLimit | None) -> None:
    assert headers.rate_limit({"ratelimit-limit": limit, "ratelimit-remaining": remaining}) == expected


def test_a_media_type_has_no_parameters() -> None:
    assert headers.media_type("Application/JSON; charset=utf-8") == "application/json"


def test_a_field_that_is_not_utf_8_is_what_it_was_before_there_was_utf_8() -> None:
    fields = headers.Fields([(b"X", "\u20ac".encode()), (b"Y", b"caf\xe9")])
    assert (fields["x"], fields["y"]) == ("\u20ac", "caf\xe9")
