"""Debian's docker-registry as a child process."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.peers import require
from support.registry_tokens import SERVICE
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "user", "secret-password"
_LISTENS = re.compile(r'listening on 127\.0\.0\.1:(\d+)[",]')


@dataclass
class Real:
    """A registry that runs, and how a client has to be configured for it."""

    kind: str
    name: str
    config: dict[str, object] = field(default_factory=dict)


@contextmanager
def docker_registry(directory: Path, auth: dict[str, Any] | None = None, **tls: Any) -> Iterator[str]:
    """Run a registry; gives its host:port.

    Args:
        directory: for its configuration and content.
        auth: the `auth` section of its configuration.
        tls: the `tls` section: certificate, key, clientcas.
    """
    require("docker-registry")
    http: dict[str, Any] = {"addr": "127.0.0.1:0"}
    if tls:
        http["tls"] = {key: value if isinstance(value, list) else str(value) for key, value in tls.items()}
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
        },
        "http": http,
        **({"auth": auth} if auth else {}),
    }
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log)
        try:
            yield f"127.0.0.1:{_port(process, directory / 'log')}"
        finally:
            process.terminate()
            process.wait(60)


def htpasswd(directory: Path, user: str = USER, password: str = PASSWORD) -> dict[str, Any]:
    """The `auth` section for a user with a password."""
    require("htpasswd")
    path = directory / "htpasswd"
    subprocess.run(["htpasswd", "-cbB", path, user, password], check=True, capture_output=True)
    return {"htpasswd": {"realm": "test", "path": str(path)}}


def tokens(directory: Path, server: Any) -> dict[str, Any]:
    """The `auth` section for a token service."""
    roots = directory / "roots.pem"
    server.write_roots(roots)
    return {
        "token": {
            "realm": server.realm,
            "service": SERVICE,
            "issuer": "test-issuer",
            "rootcertbundle": str(roots),
        }
    }


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the registry has been given: one that is chosen before it starts may be gone by then."""
    found = until(lambda: _LISTENS.search(log.read_text()) or process.poll() is not None)
    assert isinstance(found, re.Match), f"docker-registry does not run: {log.read_text()}"
    return int(found[1])
