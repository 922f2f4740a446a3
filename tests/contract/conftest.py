"""The stores that keep the one list of promises."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeAlias

import pytest
from support.registry_process import docker_registry
from support.serve_registry import MemoryRepositories, registry

from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.reference import Reference
from ocitool.registry import Client, ClientConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.content import Store

    NewStore: TypeAlias = Callable[[], Store]


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        "layout",
        "our registry",
        pytest.param("Debian's registry", marks=pytest.mark.registry),
    ],
)
def new_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewStore]:
    """Makes an empty store."""
    if request.param == "memory":
        yield MemoryStore
        return
    if request.param == "layout":
        yield lambda: LayoutStore(tmp_path_factory.mktemp("layout") / "new")
        return
    directory = tmp_path_factory.mktemp("registry")
    numbers = itertools.count()
    with ExitStack() as stack:
        if request.param == "our registry":
            served = stack.enter_context(registry(MemoryRepositories()))
            address = served.server.address
        else:
            address = stack.enter_context(docker_registry(directory))
        client = stack.enter_context(Client(ClientConfig()))
        yield lambda: client.repository(Reference.parse(f"{address}/test/{next(numbers)}"))


@pytest.fixture
def store(new_store: NewStore) -> Store:
    """An empty store."""
    return new_store()
