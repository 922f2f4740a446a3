"""The strict loader: what it reads, and every trick of security.md RC-23 that it refuses."""

from __future__ import annotations

import json
import time

import pytest

from ocitool import strictjson
from ocitool.errors import InvalidContent, UnsafeContent
from ocitool.limits import JSON_DEPTH


def test_reads_what_every_parser_reads_alike() -> None:
    raw = '{"a":[1,-2.5e3,true,false,null,"é\\u00e9\\ud83d\\ude00"],"b":{}}'.encode()
    assert strictjson.loads(raw, "it") == {"a": [1, -2500.0, True, False, None, "éé😀"], "b": {}}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b'{"a":1,"a":1}', "'a' twice", id="rc_23_duplicate_key"),
        pytest.param(b'[{"x":{"b":1,"\\u0062":2}}]', "'b' twice", id="rc_23_duplicate_key_deep_and_escaped"),
        pytest.param(b'{"size":NaN}', "NaN", id="rc_23_nan"),
        pytest.param(b"[Infinity]", "Infinity", id="rc_23_infinity"),
        pytest.param(b"[-Infinity]", "-Infinity", id="rc_23_minus_infinity"),
        pytest.param(b"[1e400]", "out of range", id="rc_23_float_overflow"),
        pytest.param(b"[-1e400]", "out of range", id="rc_23_float_underflow"),
        pytest.param(b"1" * 5000, "5000 digits", id="rc_23_integer_of_5000_digits"),
        pytest.param(b"1" * 5000 + b".5", "digits", id="rc_23_float_of_5000_digits"),
        pytest.param(b"[" * 100_000, "deeper", id="rc_23_deep_list"),
        pytest.param(b'{"a":' * 100_000, "deeper", id="rc_23_deep_object"),
        pytest.param(b'"\\ud800"', "surrogate", id="rc_23_lone_high_surrogate"),
        pytest.param(b'{"\\uDC00":1}', "surrogate", id="rc_23_lone_low_surrogate_as_key"),
        pytest.param(b'[["\\ude00\\ud83d"]]', "surrogate", id="rc_23_pair_the_wrong_way_round"),
        pytest.param(b'"\xed\xa0\x80"', "not UTF-8", id="rc_23_surrogate_as_bytes"),
        pytest.param(b"\xef\xbb\xbf{}", "not JSON", id="byte_order_mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="utf_16"),
        pytest.param(b'"\xff"', "byte 1", id="not_utf_8"),
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"{}{}", "not JSON", id="two_documents"),
        pytest.param(b"{}\x00", "not JSON", id="trailing_nul"),
        pytest.param(b"{'a':1}", "not JSON", id="single_quotes"),
        pytest.param(b"[1,]", "not JSON", id="trailing_comma"),
        pytest.param(b"[01]", "not JSON", id="leading_zero"),
        pytest.param(b'"\n"', "not JSON", id="control_character_in_a_string"),
        pytest.param("\N{ARABIC-INDIC DIGIT ONE}".encode(), "not JSON", id="unicode_digit"),
    ],
)
def test_refuses(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidContent, match=r"^the document ") as caught:
        strictjson.loads(raw, "the document")
    assert says in caught.value.message
    assert len(caught.value.message) < 200


def test_too_deep_is_a_limit_and_the_deepest_that_is_allowed_is_read() -> None:
    assert strictjson.loads(b"[" * JSON_DEPTH + b"]" * JSON_DEPTH, "it")
    with pytest.raises(UnsafeContent):
        strictjson.loads(b"[" * (JSON_DEPTH + 1) + b"]" * (JSON_DEPTH + 1), "it")


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    value = ["[{" * 500, '"[' * 500, [[]] * 500, "\\" * 501]
    assert strictjson.loads(json.dumps(value).encode(), "it") == value


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[" * 101 + b'"' + b'\\"' * 1_000_000, id="unterminated_string_of_escaped_quotes"),
        pytest.param(b"[" * 101 + b'"' + b"\\" * 1_000_001, id="unterminated_string_of_backslashes"),
        pytest.param(b"[]" * 101 + b'"' * 1_000_001, id="nothing_but_quotes"),
        pytest.param(b"1" * 4_000_000 + b"e5", id="endless_float"),
    ],
)
def test_rc_23_refusing_takes_time_in_proportion_to_the_length(raw: bytes) -> None:
    start = time.thread_time()
    with pytest.raises(InvalidContent):
        strictjson.loads(raw, "it")
    assert time.thread_time() - start < 5


def test_a_document_must_be_an_object() -> None:
    assert strictjson.load_object(b"{}", "it") == {}
    with pytest.raises(InvalidContent, match="it is not a JSON object"):
        strictjson.load_object(b"[]", "it")


def test_writes_compact_json_in_the_order_given() -> None:
    assert strictjson.dumps({"b": [1, 2], "a": "é"}) == '{"b":[1,2],"a":"é"}'.encode()
