"""The way in: one client for any number of registries."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

from ocitool.errors import Unauthorized
from ocitool.events import OnEvent, ignore
from ocitool.registry import listing
from ocitool.registry.calls import Call
from ocitool.registry.config import ClientConfig, Place, RegistriesConf
from ocitool.registry.connections import Connections
from ocitool.registry.credentials import ANONYMOUS, TOKEN_USER, Credentials, find
from ocitool.registry.endpoint import Endpoint
from ocitool.registry.repository import Repository, Site
from ocitool.registry.store import RegistryStore
from ocitool.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from ocitool.reference import Reference
    from ocitool.registry.headers import RateLimit


class Client:
    """Talks to registries: one pool of connections, one cache of tokens. A context manager, thread-safe.

    Args:
        config: how to.
        on_event: is told of retries, warnings and fallbacks.
        environ: the environment to find configuration in; None for the process's.
    """

    def __init__(
        self,
        config: ClientConfig = ClientConfig(),  # noqa: B008 - frozen
        *,
        on_event: OnEvent = ignore,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._environ = os.environ if environ is None else environ
        self._transport = Transport(config, Connections(config.pace, self._environ), on_event)
        self._conf: RegistriesConf | None = None
        self._endpoints: dict[tuple[str, bool, bool], Endpoint] = {}
        self._lock = threading.Lock()
        self._ranges = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; whoever waits for one gets an error at once."""
        self._transport.close()

    def repository(self, reference: Reference) -> RegistryStore:
        """The repository that a reference names; its tag and digest do not matter.

        No request is sent.

        Raises:
            OciError: the configuration blocks it, or can't be read.
        """
        places = self._registries().places(reference.registry, reference.repository)
        repository = Repository(
            reference.name,
            self._site(places.primary),
            tuple(self._site(mirror, reference.registry) for mirror in places.mirrors),
            self._transport,
            self._config,
        )
        return RegistryStore(repository, self._ranges)

    def check(self, registry: str, username: str, password: str) -> None:
        """See whether a registry accepts a user's password, or with `<token>` as user an identity token.

        Raises:
            Unauthorized: it does not.
            RegistryError: it could not be asked.
        """
        given = (
            Credentials(identity_token=password)
            if username == TOKEN_USER
            else Credentials(username, password)
        )
        endpoint = self._new_endpoint(registry, lambda _: given, insecure=False)
        call = Call(method="GET", target="/v2/", what=f"login to {registry}")
        try:
            self._transport.request(endpoint, call)
        except Unauthorized as error:
            error.hint = "is it the right user and password?"
            raise

    def catalog(self, registry: str) -> Iterator[str]:
        """The repositories of a registry, where it tells.

        Raises (while iterating):
            OciError: it does not.
        """
        endpoint = self._endpoint(registry)
        call = Call(
            method="GET",
            target=f"/v2/_catalog?n={listing.PAGE}",
            what=f"catalog of {registry}",
            scopes=("registry:catalog:*",),
        )
        return listing.names(self._transport, endpoint, call, "repositories")

    def rate_limit(self, registry: str) -> RateLimit | None:
        """The quota that a registry reported last."""
        return self._endpoint(registry).rate_limit

    def _registries(self) -> RegistriesConf:
        with self._lock:
            if self._conf is None:
                self._conf = RegistriesConf.load(self._environ, self._config.registries_conf)
            return self._conf

    def _site(self, place: Place, mirror_of: str = "") -> Site:
        endpoint = self._endpoint(place.registry, insecure=place.insecure, typed=not mirror_of)
        return Site(endpoint, place.repository, mirror_of, place)

    def _endpoint(self, registry: str, *, insecure: bool = False, typed: bool = True) -> Endpoint:
        """The one endpoint of a registry; what the user typed is not for mirrors."""
        key = (registry, insecure, typed)
        with self._lock:
            endpoint = self._endpoints.get(key)
            if endpoint is None:
                find = self._typed_or_found if typed else self._found
                endpoint = self._new_endpoint(registry, partial(find, registry), insecure=insecure)
                self._endpoints[key] = endpoint
            return endpoint

    def _new_endpoint(self, registry: str, find: Callable[[str], Credentials], *, insecure: bool) -> Endpoint:
        transport = self._transport
        return Endpoint(
            registry, self._config, self._environ, find, transport.ask, transport.pause, insecure=insecure
        )

    def _typed_or_found(self, registry: str, repository: str) -> Credentials:
        config = self._config
        if config.username or config.registry_token:
            return Credentials(config.username, config.password, registry_token=config.registry_token)
        return self._found(registry, repository)

    def _found(self, registry: str, repository: str) -> Credentials:
        if self._config.no_credentials:
            return ANONYMOUS
        return find(registry, repository, self._environ, self._config.authfile)
