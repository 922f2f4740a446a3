"""The tables of behaviours name tests that exist, and every numbered test is in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = {
    f"{file.stem}::{name}"
    for kind in ("unit", "integration")
    for file in (ROOT / "tests" / kind / "registry").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("page", ["registry-behaviours.md", "distribution-spec.md"])
def test_every_test_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+::test_\w+)`", (ROOT / "docs/reference" / page).read_text()))
    assert named
    assert not named - TESTS


def test_every_row_that_is_tested_is_in_the_table() -> None:
    page = (ROOT / "docs/reference/registry-behaviours.md").read_text()
    for test in TESTS:
        for kind, number in re.findall(r"_(rc|rr|f)_(\d\d)(?=_)", test):
            (row,) = (line for line in page.splitlines() if line.startswith(f"| {kind.upper()}-{number} |"))
            assert f"`{test}`" in row
