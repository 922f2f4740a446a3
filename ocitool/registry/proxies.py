"""HTTP proxies, as the environment names them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ocitool.errors import OciError
from ocitool.registry.origins import is_loopback_name
from ocitool.registry.text import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from ocitool.registry.origins import Origin


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> str:
    """The proxy's URL for an origin, or "" for none.

    HTTPS_PROXY, HTTP_PROXY and ALL_PROXY in either case; http_proxy only in lower case where REQUEST_METHOD
    is set, because a web server's CGI makes HTTP_PROXY from a header of the request.
    """
    if is_loopback_name(origin.host) or _excluded(origin, _get(environ, "no_proxy")):
        return ""
    name = f"{origin.scheme}_proxy"
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        proxy = environ.get(name, "")
    else:
        proxy = _get(environ, name) or _get(environ, "all_proxy")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def checked(proxy: str) -> httpx.URL:
    """A proxy's URL, with the user and the password that it may hold.

    Raises:
        OciError: it is no URL, or that of another kind of proxy.
    """
    from ocitool.registry.lean import httpx

    hint = (
        "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name one as http://host:port; what is encrypted stays so"
        " on its way through"
    )
    try:
        url = httpx.URL(proxy)
    except httpx.InvalidURL:
        # Without what is wrong with it: in a password that needs escapes it is a part of that.
        raise OciError("the proxy that the environment names is not a URL", hint=hint) from None
    if url.scheme != "http" or not url.host:
        raise OciError(f"the proxy {redacted(proxy)} is of no kind that is known here", hint=hint)
    return url


def _get(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excluded(origin: Origin, no_proxy: str) -> bool:
    return any(_matches(origin, item.strip().lower()) for item in no_proxy.split(","))


def _matches(origin: Origin, item: str) -> bool:
    """One item of NO_PROXY: `*`, a name and all below it, an address, a network, with or without port."""
    if not item:
        return False
    if item == "*":
        return True
    host, colon, port = item.rpartition(":")
    if colon and port.isdecimal() and (host.startswith("[") or ":" not in host):
        if int(port) != origin.port:
            return False
        item = host
    item = item.strip("[]")
    try:
        return ipaddress.ip_address(origin.host) in ipaddress.ip_network(item, strict=False)
    except ValueError:
        name = item.removeprefix("*").removeprefix(".")
        return origin.host == name or origin.host.endswith(f".{name}")
