"""Connections: one request out, one response back, over sockets that we watch.

The only module that knows of httpx's exceptions. httpx's transport is used
without its client: there is no cookie jar (Harbor takes any cookie for a browser's), no netrc, no redirect
that was not decided here, and no header that was not asked for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from ocitool.errors import OciError, RegistryError, Unreachable
from ocitool.registry import tls
from ocitool.registry.addresses import Reach, check_literal
from ocitool.registry.proxies import proxy_for
from ocitool.registry.sockets import Backend, Pace, Stream, Streams
from ocitool.registry.text import printable, redacted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from ocitool.registry.origins import Origin

_KEEPALIVE: Final = 30.0  # seconds that an idle connection is kept


@dataclass(frozen=True, slots=True)
class Route:
    """How an origin may be reached: whom to believe there, and how private its address may be."""

    origin: Origin
    trust: tls.Trust
    reach: Reach


class Connections:
    """Pools of connections, one for each route. Safe to use from several threads."""

    def __init__(self, pace: Pace, environ: Mapping[str, str]) -> None:
        self._pace = pace
        self._environ = environ
        self._lock = threading.Lock()
        self._transports: dict[Route, httpx.BaseTransport] = {}
        self._contexts: dict[tls.Trust, ssl.SSLContext] = {}
        self._streams = Streams()
        self._closed = False

    def send(self, request: httpx.Request, route: Route, *, commits: bool = False) -> httpx.Response:
        """Send a request; the response's body has not been read, and the caller closes it.

        Args:
            request: what to send.
            route: how to get there.
            commits: the answer may take as long as `Pace.commit`.

        Raises:
            Unreachable: there is no response.
            RegistryError: what came back is not HTTP.
        """
        transport = self._transport(route)
        answer = self._pace.commit if commits else self._pace.answer
        timeouts = {"connect": self._pace.connect, "read": answer, "write": self._pace.idle}
        request.extensions = {**request.extensions, "timeout": timeouts}
        try:
            response = transport.handle_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, request) from error
        response.request = request
        stream = response.extensions.get("network_stream")
        if isinstance(stream, Stream):
            stream.answered()
        return response

    def close(self) -> None:
        """Close every connection, also those that another thread waits for."""
        with self._lock:
            self._closed = True
            transports, self._transports = list(self._transports.values()), {}
        self._streams.interrupt()
        for transport in transports:
            transport.close()

    def _transport(self, route: Route) -> httpx.BaseTransport:
        with self._lock:
            if self._closed:
                raise Unreachable("the client has been closed")
            transport = self._transports.get(route)
            if transport is None:
                transport = self._transports[route] = self._new_transport(route)
            return transport

    def _new_transport(self, route: Route) -> httpx.BaseTransport:
        context = None
        if route.origin.scheme == "https":
            context = self._contexts.get(route.trust)
            if context is None:
                context = self._contexts[route.trust] = tls.context(route.trust, self._environ)
        proxy = proxy_for(route.origin, self._environ)
        if proxy:
            # The proxy resolves names itself, so only an address that is written out can be judged; the
            # proxy's own address is the user's choice.
            check_literal(route.origin.host, route.reach)
            return _Transport(context, Backend(Reach.ANY, self._pace, self._streams), proxy)
        return _Transport(context, Backend(route.reach, self._pace, self._streams), proxy)


class _Transport(httpx.HTTPTransport):
    """httpx's transport, over our own sockets."""

    def __init__(self, context: ssl.SSLContext | None, backend: Backend, proxy: str) -> None:
        super().__init__(verify=context or False, trust_env=False)
        if not proxy:
            self._pool = httpcore.ConnectionPool(
                ssl_context=context,
                network_backend=backend,
                max_connections=None,
                keepalive_expiry=_KEEPALIVE,
            )
            return
        url = httpx.URL(proxy)
        self._pool = httpcore.HTTPProxy(
            str(url.copy_with(userinfo=b"")),
            proxy_auth=(url.username, url.password) if url.userinfo else None,
            ssl_context=context,
            network_backend=backend,
            max_connections=None,
            keepalive_expiry=_KEEPALIVE,
        )


def translated(error: Exception, request: httpx.Request) -> OciError:
    """Every exception of httpx as one of ours."""
    method, url = request.method, redacted(str(request.url))
    text = printable(str(error))
    lost = isinstance(error, httpx.TimeoutException | httpx.NetworkError)
    # These are h11's words for a connection that ended too early, which it does not tell apart by type.
    ended = isinstance(error, httpx.RemoteProtocolError) and any(
        words in text for words in ("disconnected", "peer closed connection", "Server closed")
    )
    if lost or ended:
        return Unreachable(f"{method} {url}: {text}", method=method, url=url, temporary=True)
    if isinstance(error, httpx.ProxyError):
        return Unreachable(f"{method} {url}: the proxy refuses: {text}", method=method, url=url)
    return RegistryError(f"{method} {url}: not HTTP as it should be: {text}", method=method, url=url)


def body_of(response: httpx.Response) -> Iterator[bytes]:
    """A response's body as it comes; an end before its time is an error.

    Raises (while iterating):
        Unreachable: the connection was lost.
    """
    try:
        yield from response.iter_raw()
    except httpx.HTTPError as error:
        raise translated(error, response.request) from error
