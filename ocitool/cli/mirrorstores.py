"""The registries and layouts behind a mirror file, each reached as the file and the command line say."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ocitool.errors import OciError
from ocitool.mirror import Stores
from ocitool.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.content import Store
    from ocitool.locations import Session
    from ocitool.mirror.config import Credentials, MirrorFile, Registry
    from ocitool.registry import Client, ClientConfig, RegistryStore


class MirrorStores:
    """Opens what a mirror file names, once each. A context manager; may be used from several threads."""

    def __init__(self, session: Session, file: MirrorFile) -> None:
        self._session = session
        self._registries = file.registries
        self._clients: dict[str, Client] = {}
        self._repositories: dict[str, RegistryStore] = {}
        self._layouts: dict[str, Store] = {}
        self._stack = ExitStack()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def stores(self) -> Stores:
        """As the mirror takes them."""
        return Stores(source=self._repository, store=self._store, catalog=self._catalog)

    def left(self, host: str) -> str:
        """What a registry said of the pulls that are left, or ""."""
        limit = self._client(host).rate_limit(host)
        return f"{limit.remaining} of {limit.limit} pulls left" if limit else ""

    def _catalog(self, host: str) -> Iterable[str]:
        return self._client(host).catalog(host)

    def _repository(self, reference: Reference) -> RegistryStore:
        with self._lock:
            found = self._repositories.get(reference.name)
            if found is None:
                found = self._client(reference.registry).repository(reference)
                self._repositories[reference.name] = found
            return found

    def _store(self, place: str) -> Store:
        if not place.startswith("oci:"):
            return self._repository(Reference.parse(place))
        from ocitool.layout import LayoutStore

        with self._lock:
            return self._layouts.setdefault(place, LayoutStore(Path(place.removeprefix("oci:"))))

    def _client(self, host: str) -> Client:
        """The session's client, or one of its own for a registry of which the file says something."""
        settings = self._registries.get(host)
        if settings is None:
            return self._session.client
        with self._lock:
            if host not in self._clients:
                from ocitool.registry import Client

                config = self._config(host, settings)
                self._clients[host] = self._stack.enter_context(
                    Client(config, on_event=self._session.on_event)
                )
            return self._clients[host]

    def _config(self, host: str, settings: Registry) -> ClientConfig:
        changes: dict[str, Any] = {}
        if settings.tls_verify is not None:
            changes["tls_verify"] = settings.tls_verify
        if settings.plain_http is not None:
            changes["plain_http"] = settings.plain_http
        if settings.ca_file:
            changes["ca_file"] = Path(settings.ca_file)
        if settings.cert_dir:
            changes["cert_dir"] = Path(settings.cert_dir)
        return replace(self._session.config, **changes, **self._credentials(host, settings.credentials))

    def _credentials(self, host: str, credentials: Credentials) -> dict[str, Any]:
        if credentials.helper:
            import tempfile

            # The file names a program and holds no secret.
            directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            authfile = directory / "auth.json"
            authfile.write_text(json.dumps({"credHelpers": {host: credentials.helper}}))
            return {"authfile": authfile}
        if not credentials.username_env:
            return {}
        return {
            "username": _variable(credentials.username_env),
            "password": _variable(credentials.password_env),
        }


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise OciError(f"the environment variable {name}, which the mirror file names, is not set")
    return value
