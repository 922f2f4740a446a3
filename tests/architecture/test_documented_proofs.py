"""Every test that the reference pages give as a proof exists."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
from support.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
_PROOF = re.compile(r"`((?:unit|property|contract|integration|architecture)/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_proof_that_a_page_gives_exists(page: Path) -> None:
    for file, name in set(_PROOF.findall(page.read_text())):
        tree = ast.parse((ROOT / "tests" / file).read_bytes())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in names, f"{file} has no {name}"


def test_the_image_specification_is_proved() -> None:
    page = (ROOT / "docs" / "reference" / "image-spec.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "the specification" not in line]
    assert len(rows) > 40
    assert [row for row in rows if "::" not in row and "let pass" not in row] == []
