"""The stores that keep the one list of promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest

from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.content import Store

    NewStore: TypeAlias = Callable[[], Store]


@pytest.fixture(scope="module", params=["memory", "layout"])
def new_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewStore:
    """Makes an empty store."""
    if request.param == "memory":
        return MemoryStore
    return lambda: LayoutStore(tmp_path_factory.mktemp("layout") / "new")


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """An empty store."""
    return new_store()
