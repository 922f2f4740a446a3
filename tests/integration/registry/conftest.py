"""Registries to test against: the fake, and docker-registry in four configurations."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support.registry_certificates import Authority
from support.registry_fake import FakeRegistry
from support.registry_process import Real, docker_registry, htpasswd, tokens
from support.registry_tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry().running() as registry:
        yield registry


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    server = TokenServer()
    with server.server.running():
        yield server


USER: dict[str, object] = {"username": "user", "password": "secret-password"}
KINDS = ["fake", "fake-token", "open", "htpasswd", "token", "tls"]


@pytest.fixture(scope="session", params=KINDS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """Each of the registries in turn; the fake is among them so that it stays honest."""
    directory = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        yield _started(request.param, directory, stack)


def _started(kind: str, directory: Path, stack: ExitStack) -> Real:
    if kind.startswith("fake"):
        registry = stack.enter_context(FakeRegistry().running())
        if kind == "fake":
            return Real(kind, registry.name)
        server = TokenServer()
        stack.enter_context(server.server.running())
        server.protects(registry)
        return Real(kind, registry.name, USER)
    if kind == "open":
        return Real(kind, stack.enter_context(docker_registry(directory)))
    if kind == "htpasswd":
        return Real(kind, stack.enter_context(docker_registry(directory, htpasswd(directory))), USER)
    if kind == "token":
        server = TokenServer()
        stack.enter_context(server.server.running())
        return Real(kind, stack.enter_context(docker_registry(directory, tokens(directory, server))), USER)
    authority = Authority()
    (directory / "ca.crt").write_bytes(authority.pem)
    certificate, key = authority.write(directory, "server")
    ours, our_key = authority.write(directory, "client")
    name = stack.enter_context(
        docker_registry(directory, certificate=certificate, key=key, clientcas=[str(directory / "ca.crt")])
    )
    files = {"ca_file": directory / "ca.crt", "cert_file": ours, "key_file": our_key}
    return Real(kind, name, {**files})
