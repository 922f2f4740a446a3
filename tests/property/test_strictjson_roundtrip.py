"""The strict loader against the standard one, on anything."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from property.strategies import json_values

from ocitool import strictjson
from ocitool.errors import InvalidContent


@given(json_values)
def test_reads_what_it_writes(value: object) -> None:
    assert strictjson.loads(strictjson.dumps(value), "it") == value


@given(value=json_values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_reads_what_the_standard_library_writes(
    value: object, *, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert strictjson.loads(raw, "it") == value


@given(st.binary() | st.text().map(str.encode) | st.text(alphabet='[]{}",:\\u0dD8 1e.-N').map(str.encode))
def test_reads_garbage_as_the_standard_library_does_or_refuses_it(raw: bytes) -> None:
    try:
        value = strictjson.loads(raw, "it")
    except InvalidContent:
        return
    assert value == json.loads(raw.decode())
