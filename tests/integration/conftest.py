"""The command line and the registries that several integration tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.registry_process import docker_registry, htpasswd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ocitool(tmp_path: Path) -> Ocitool:
    """The command line with a home of its own."""
    return Ocitool(tmp_path)


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that anyone may use."""
    with docker_registry(tmp_path_factory.mktemp("open")) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that asks for a user and a password."""
    directory = tmp_path_factory.mktemp("guarded")
    with docker_registry(directory, htpasswd(directory)) as address:
        yield address
