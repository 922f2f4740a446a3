"""The registries that the conformance tests run against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.serve_registry import MemoryRepositories, Registry, layout_repositories, registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.serve import Repositories


@pytest.fixture(params=["memory", "layout"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry, over each kind of store."""
    repositories: Repositories = (
        MemoryRepositories() if request.param == "memory" else layout_repositories(tmp_path / "layout")
    )
    with registry(repositories) as running:
        yield running
