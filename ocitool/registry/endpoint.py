"""One registry as it is reached: by which scheme, believed on what grounds, and with which rights."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocitool.errors import Unreachable
from ocitool.reference import DOCKER_HUB
from ocitool.registry.addresses import Reach, reach_of, resolve
from ocitool.registry.auth import Authenticator
from ocitool.registry.config import trust_for
from ocitool.registry.connections import Route
from ocitool.registry.origins import Origin, is_loopback_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ocitool.registry.auth import Ask
    from ocitool.registry.config import ClientConfig
    from ocitool.registry.credentials import Credentials
    from ocitool.registry.headers import RateLimit

# Where the API of Docker Hub lives; docker.io itself is a web site.
_API_HOSTS: Final = {DOCKER_HUB: "registry-1.docker.io"}


class Endpoint:
    """A registry. Made once for each name, so that what was learnt of it serves every repository there.

    Attributes:
        name: how references call it.
        auth: its challenge and token flow.
        unsettled: held by whoever finds out which of the candidates it is.
        rate_limit: the quota that it reported last.
    """

    def __init__(
        self,
        name: str,
        config: ClientConfig,
        environ: Mapping[str, str],
        find: Callable[[str], Credentials],
        ask: Callable[[Endpoint], Ask],
        pause: Callable[[float], None],
        *,
        insecure: bool = False,
    ) -> None:
        self.name = name
        self.rate_limit: RateLimit | None = None
        self._config = config
        self._trust = trust_for(name, config, environ, insecure=insecure)
        self._candidates = self._schemes()
        self._reach: Reach | None = None
        self._lock = threading.Lock()
        self.unsettled = threading.Lock()
        self.auth = Authenticator(lambda: self.origin, find, ask(self), pause)

    @property
    def origin(self) -> Origin:
        """Where it is; the first candidate until `settle`."""
        return self._candidates[0]

    @property
    def candidates(self) -> tuple[Origin, ...]:
        """Where it may be, in the order to try."""
        return self._candidates

    def settle(self, origin: Origin) -> None:
        """One of the candidates has answered: it is there, and nowhere else from now on."""
        self._candidates = (origin,)

    def route(self, origin: Origin) -> Route:
        """How to reach the registry itself, or another origin that it named."""
        if origin in self._candidates:
            return Route(origin, self._trust, Reach.ANY)
        # Our client certificates are for the registry; whoever else it names sees none.
        return Route(origin, replace(self._trust, identities=()), self._own_reach())

    def may_see_secrets(self, origin: Origin) -> bool:
        """Whether a secret may travel to an origin: over TLS, to this machine, or where the user said so."""
        return origin.scheme == "https" or is_loopback_name(origin.host) or self._config.plain_http

    def _schemes(self) -> tuple[Origin, ...]:
        host = _API_HOSTS.get(self.name, self.name)
        secure, plain = Origin.parse("https", host), Origin.parse("http", host)
        if self._config.plain_http:
            return (plain,)
        if is_loopback_name(secure.host) or not self._trust.verify:
            return (secure, plain)
        return (secure,)

    def _own_reach(self) -> Reach:
        """How private the registry's own address is; of several the most public one counts."""
        with self._lock:
            if self._reach is None:
                try:
                    found = resolve(self.origin.host, self.origin.port)
                except Unreachable:
                    found = []  # only a proxy knows it
                reaches = [reach_of(ipaddress.ip_address(a.partition("%")[0])) for _, a in found]
                self._reach = min(reaches, default=Reach.PUBLIC)
            return self._reach
