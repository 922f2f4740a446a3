"""Where a request goes, and where a server's answer may send the next one.

A credential belongs to one origin: scheme, host and port together (RFC 6454). Everything that a server
names - a redirect's or an upload's Location, a Link, a token realm - passes through `follow`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from ocitool.errors import RegistryError
from ocitool.registry.text import printable, redacted

if TYPE_CHECKING:
    from typing import NoReturn

    import httpx

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MAX_LENGTH: Final = 16 << 10
_LOOPBACK_V4: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: the name in the spelling of IDNA, the default port written out."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        """The origin of a URL."""
        host = url.raw_host.decode("ascii").lower()
        return cls(url.scheme, host, url.port or _DEFAULT_PORTS.get(url.scheme, 0))

    @classmethod
    def parse(cls, scheme: str, authority: str) -> Origin:
        """The origin of `host` or `host:port`, as it stands in a reference."""
        host, colon, port = authority.rpartition(":")
        if not colon or port.endswith("]"):  # the colon is one of an address's
            host, port = authority, ""
        return cls(scheme, host.strip("[]").lower(), int(port or 0) or _DEFAULT_PORTS[scheme])

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def url(self, path: str) -> httpx.URL:
        """The URL of a path, which may have a query."""
        from ocitool.registry.lean import httpx

        return httpx.URL(f"{self.scheme}://{self.authority}{path}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def is_loopback_name(host: str) -> bool:
    """Whether a name can only mean this machine: then http is as safe as https."""
    return (
        host == "localhost"
        or host.endswith(".localhost")
        or host in {"::1", "[::1]"}
        or _LOOPBACK_V4.fullmatch(host) is not None
    )


def follow(base: httpx.URL, target: str, home: Origin, what: str) -> httpx.URL:
    """Where a server sends us.

    Args:
        base: the URL of the request that it answers.
        target: what it says, absolute or relative.
        home: the registry's origin.
        what: how to call the target in an error ("the redirect").

    Raises:
        RegistryError: it is no URL, or one that may not be followed: with user information, of another
            scheme than http and https, or from https down to http.
    """

    def refuse(why: str) -> NoReturn:
        raise RegistryError(f"{what} of {redacted(str(base))} {why}", url=redacted(str(base)))

    if len(target) > _MAX_LENGTH or not target.isprintable() or " " in target or "\\" in target:
        refuse(f"is not a URL: {printable(target, 100)!r}")
    from ocitool.registry.lean import httpx

    try:
        # As `base.join` does, but read once: some registries keep half a kilobyte of state in a location.
        url = httpx.URL(urljoin(str(base), target).partition("#")[0])
    except (httpx.InvalidURL, ValueError, TypeError):
        refuse(f"is not a URL: {printable(redacted(target), 100)!r}")
    if url.userinfo:
        refuse("carries a user name")
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        refuse(f"has the scheme {printable(url.scheme, 20)!r}, not https")
    if url.port is not None and not 0 < url.port < 1 << 16:
        refuse(f"has the port {url.port}")
    if base.scheme == "https" and url.scheme == "http":
        # Registries behind a proxy that ends TLS often don't know that they are reached by https.
        if url.raw_host.decode("ascii").lower() == home.host and url.port in {None, 80, 443, home.port}:
            return url.copy_with(scheme="https", port=home.port)
        refuse(f"leads from https down to {redacted(str(url))}")
    return url
