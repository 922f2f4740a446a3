"""The registries that the conformance tests run against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.serve_registry import MemoryRepositories, Registry, layout_repositories, registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ocitool.content import Source, Store
    from ocitool.serve import Repositories


class Exchangeable:
    """Repositories that are others for every test, behind one server: starting and stopping takes time."""

    def __init__(self) -> None:
        self.now: Repositories = MemoryRepositories()

    def names(self) -> Iterable[str]:
        return self.now.names()

    def open(self, name: str, *, create: bool = False) -> Store | Source | None:
        return self.now.open(name, create=create)


@pytest.fixture(scope="session")
def _running() -> Iterator[tuple[Exchangeable, Registry]]:
    repositories = Exchangeable()
    with registry(repositories) as running:
        yield repositories, running


@pytest.fixture(params=["memory", "layout"])
def served(
    request: pytest.FixtureRequest, _running: tuple[Exchangeable, Registry], tmp_path: Path
) -> Registry:
    """An empty registry, over each kind of store."""
    repositories, running = _running
    repositories.now = (
        MemoryRepositories() if request.param == "memory" else layout_repositories(tmp_path / "layout")
    )
    return running
