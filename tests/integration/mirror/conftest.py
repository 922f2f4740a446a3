"""Two registries to mirror between: ours, which tells of its requests, and Debian's or ours again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.command import Ocitool
from support.mirror_field import Field
from support.registry_process import docker_registry
from support.serve_registry import MemoryRepositories, registry

from ocitool.registry import Client


@pytest.fixture(params=["docker-registry", "ocitool serve"])
def between(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Field]:
    with ExitStack() as stack:
        up = stack.enter_context(registry(MemoryRepositories()))
        if request.param == "docker-registry":
            directory = tmp_path / "registry"
            directory.mkdir()
            down = stack.enter_context(docker_registry(directory))
        else:
            ours = stack.enter_context(registry(MemoryRepositories(), sparse_indexes=True))
            down = ours.server.url.removeprefix("http://")
        work = tmp_path / "work"
        work.mkdir()
        client = stack.enter_context(Client())
        yield Field(up, down, Ocitool(work), work, client, request.param)
