"""Properties of what the runtime reads: JSON, paths, configurations, filters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.run_bpf import run

from ocitool.errors import InvalidContent, OciError
from ocitool.run import defaults, jsonfast, paths, seccomp, spec, state

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_documents_survive_a_round_trip(value: Any) -> None:
    assert jsonfast.loads(jsonfast.dumps(value).encode(), "x") == value
    assert json.loads(jsonfast.dumps(value)) == value


@given(st.binary(max_size=40))
def test_bytes_are_read_as_the_standard_library_reads_them_or_refused(data: bytes) -> None:
    try:
        found = jsonfast.loads(data, "x")
    except InvalidContent:
        return
    assert found == json.loads(data)


@given(st.text(alphabet="/.ab", max_size=20))
def test_cleaned_paths_stay_below_the_root(path: str) -> None:
    cleaned = paths.same_names(path)
    assert cleaned == os.path.normpath("/" + path).replace("//", "/")
    assert ".." not in cleaned.split("/")


@given(st.text(max_size=12))
def test_rn_17_an_id_that_is_accepted_is_one_name(text: str) -> None:
    try:
        found = state.check_id(text)
    except InvalidContent:
        return
    assert found == Path(text).name == text
    assert text not in ("", ".", "..")
    assert text.isascii()


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, below in items for found in [(*prefix, key), *_paths(below, (*prefix, key))]]


@settings(max_examples=150)
@given(st.data())
def test_a_configuration_is_accepted_or_refused_and_nothing_else(data: st.DataObject) -> None:
    config = defaults.config()
    config["linux"]["seccomp"]["syscalls"] = config["linux"]["seccomp"]["syscalls"][1:2]
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(_paths(config)))
        here: Any = config
        for key in parents:
            here = here[key]
        here[last] = data.draw(JSON)
    try:
        spec.check(config)
    except OciError:
        return
    assert config["process"] is None or config["process"]["cwd"].startswith("/")


WORD = st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF, 0x1_00000000, 0x1_00000001, (1 << 64) - 1]) | st.integers(
    0, (1 << 64) - 1
)
CONDITION = st.builds(
    lambda index, op, value, second: {
        "index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second
    },
    st.integers(0, 5), st.sampled_from(seccomp.OPERATORS), WORD, WORD,
)  # fmt: skip


def _holds(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    argument, value = arguments[condition["index"]], condition["value"]
    outcomes: dict[str, bool] = {
        "NE": argument != value, "LT": argument < value, "LE": argument <= value, "EQ": argument == value,
        "GE": argument >= value, "GT": argument > value,
        "MASKED_EQ": argument & value == condition["valueTwo"],
    }  # fmt: skip
    return outcomes[condition["op"].removeprefix("SCMP_CMP_")]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.lists(CONDITION, max_size=3, unique_by=lambda c: c["index"]), st.integers(2, 99)),
        max_size=4,
    ),
    st.lists(st.tuples(*[WORD] * 6), min_size=1, max_size=6),
)
def test_a_filter_does_what_its_rules_say(
    rules: list[tuple[list[dict[str, Any]], int]], calls: list[tuple[int, ...]]
) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": conditions}
            for conditions, errno in rules
        ],
    }
    program = seccomp.compile_filter(profile).program
    ordered = [rule for rule in rules if rule[0]] + [rule for rule in rules if not rule[0]]
    for arguments in calls:
        wanted = next(
            (errno for conditions, errno in ordered if all(_holds(c, arguments) for c in conditions)), 1
        )
        assert run(program, 0xC000003E, 0, arguments) == 0x50000 | wanted
