"""Connections: one request out, one response back, over sockets that we watch.

The only module that knows of httpcore's exceptions. httpcore, which is httpx's transport, is used without
httpx's client: there is no cookie jar (Harbor takes any cookie for a browser's), no netrc, no redirect that
was not decided here, and no header that was not asked for. Its connections are used without its pool, which
looks at every connection it has for every request: with many of them that takes longer than the request.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpcore

from ocitool.errors import OciError, RegistryError, Unreachable
from ocitool.registry import tls
from ocitool.registry.addresses import Reach, check_literal
from ocitool.registry.headers import Fields
from ocitool.registry.proxies import checked, proxy_for
from ocitool.registry.sockets import Backend, Pace, PlainAnswer, ProxyBackend, Stream, Streams
from ocitool.registry.text import printable, redacted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import httpx

    from ocitool.registry.origins import Origin

_KEEPALIVE: Final = 30.0  # seconds that an idle connection is kept


@dataclass(frozen=True, slots=True)
class Route:
    """How an origin may be reached: whom to believe there, and how private its address may be."""

    origin: Origin
    trust: tls.Trust
    reach: Reach


class Reply:
    """A response whose body has not been read. Whoever has it closes it.

    Attributes:
        method: that of the request.
        origin: where it was sent.
        status: of HTTP.
        headers: the header fields.
    """

    def __init__(
        self, method: str, origin: Origin, path: str, response: httpcore.Response, done: Callable[[], None]
    ) -> None:
        self.method = method
        self.origin = origin
        self._path = path
        self.status = response.status
        self.headers = Fields(response.headers)
        self._response = response
        self._done = done
        self._closed = False

    @property
    def url(self) -> httpx.URL:
        """Where the request was sent."""
        return self.origin.url(self._path)

    @property
    def where(self) -> str:
        """The same, fit to be shown."""
        return redacted(f"{self.origin}{self._path}")

    def body(self) -> Iterator[bytes]:
        """The body as it comes; an end before its time is an error.

        Raises (while iterating):
            Unreachable: the connection was lost.
        """
        try:
            yield from self._response.iter_stream()
        except _FAILURES as error:
            raise translated(error, self.method, self.where) from error

    def close(self) -> None:
        """Give the connection back; what was not read of the body is lost, and the connection with it."""
        if not self._closed:
            self._closed = True
            self._response.close()
            self._done()


class Connections:
    """Pools of connections, one for each route. Safe to use from several threads."""

    def __init__(self, pace: Pace, environ: Mapping[str, str]) -> None:
        self._pace = pace
        self._environ = environ
        self._lock = threading.Lock()
        self._pools: dict[Route, _Pool] = {}
        self._contexts: dict[tls.Trust, ssl.SSLContext] = {}
        self._streams = Streams()
        self._closed = False

    def send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str],
        body: Iterable[bytes] | bytes | None,
        route: Route,
        *,
        commits: bool = False,
    ) -> Reply:
        """Send a request; the response's body has not been read, and the caller closes it.

        Args:
            method: of HTTP.
            path: what to ask for there, with its query.
            fields: the header fields, but for Host, which is the route's.
            body: what to send; how long it is, is said by the fields.
            route: where to, and how to get there.
            commits: the answer may take as long as `Pace.commit`.

        Raises:
            Unreachable: there is no response.
            RegistryError: what came back is not HTTP.
        """
        answer = self._pace.commit if commits else self._pace.answer
        timeouts = {"connect": self._pace.connect, "read": answer, "write": self._pace.idle}
        origin = route.origin
        url = httpcore.URL(
            scheme=origin.scheme.encode(), host=origin.host.encode(), port=origin.port, target=path.encode()
        )
        # An empty body would be sent as one empty piece, which costs as much as a full one.
        request = httpcore.Request(method, url, content=body or (), extensions={"timeout": timeouts})
        request.headers = [
            (b"Host", origin.authority.encode()),
            *((name.encode(), value.encode()) for name, value in fields.items()),
        ]
        pool = self._pool(route)
        connection = pool.take(request)
        try:
            response = connection.handle_request(request)
        except BaseException as error:
            pool.give_back(connection)
            if isinstance(error, _FAILURES):
                told = translated(error, method, redacted(f"{origin}{path}"))
                # Ours alone: what h11 refuses to send, it shows, and that may be a token.
                raise told from (None if isinstance(error, httpcore.LocalProtocolError) else error)
            raise
        stream = response.extensions.get("network_stream")
        if isinstance(stream, Stream):
            stream.answered()
        return Reply(method, route.origin, path, response, lambda: pool.give_back(connection))

    def knock(self, route: Route) -> bool:
        """See whether TLS is spoken at a registry that may be spoken to without, before it is trusted.

        To load whom to trust takes longer than to ask, so that it is done for those that do speak it.

        Returns:
            Whether it surely is.

        Raises:
            PlainAnswer: it is not.
        """
        if not route.trust.verify:
            return False  # then nobody is trusted or distrusted, and there is nothing to load
        origin = route.origin
        backend = Backend(route.reach, self._pace, self._streams)
        try:
            stream = backend.connect_tcp(origin.host, origin.port)
            stream.start_tls(tls.any_context(), origin.host).close()
        except PlainAnswer:
            raise
        except Unreachable:
            return False  # who asks in earnest will be told why
        return True

    def close(self) -> None:
        """Close every connection, also those that another thread waits for."""
        with self._lock:
            self._closed = True
            pools, self._pools = list(self._pools.values()), {}
        self._streams.interrupt()
        for pool in pools:
            pool.close()

    def _pool(self, route: Route) -> _Pool:
        with self._lock:
            if self._closed:
                raise Unreachable("the client has been closed")
            pool = self._pools.get(route)
            if pool is None:
                pool = self._pools[route] = _Pool(self._maker(route))
            return pool

    def _maker(self, route: Route) -> httpcore.ConnectionPool:
        """What makes the connections of a route; the pool that it is as well stays empty."""
        context = None
        if route.origin.scheme == "https":
            context = self._contexts.get(route.trust)
            if context is None:
                context = self._contexts[route.trust] = tls.context(route.trust, self._environ)
        proxy = proxy_for(route.origin, self._environ)
        if not proxy:
            return httpcore.ConnectionPool(
                ssl_context=context,
                network_backend=Backend(route.reach, self._pace, self._streams),
                keepalive_expiry=_KEEPALIVE,
            )
        # The proxy resolves names itself, so only an address that is written out can be judged; the proxy's
        # own address is the user's choice.
        check_literal(route.origin.host, route.reach)
        url = checked(proxy)
        return httpcore.HTTPProxy(
            str(url.copy_with(userinfo=b"")),
            proxy_auth=(url.username, url.password) if url.userinfo else None,
            ssl_context=context,
            network_backend=ProxyBackend(Reach.ANY, self._pace, self._streams),
            keepalive_expiry=_KEEPALIVE,
        )


class _Pool:
    """The idle connections of one route. Safe to use from several threads."""

    def __init__(self, maker: httpcore.ConnectionPool) -> None:
        self._maker = maker
        self._lock = threading.Lock()
        self._idle: list[httpcore.ConnectionInterface] = []
        self._closed = False

    def take(self, request: httpcore.Request) -> httpcore.ConnectionInterface:
        """The idle connection that was used last, as the one that most likely still is open; or a new one."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._maker.create_connection(request.url.origin)
            if not connection.has_expired():
                return connection
            connection.close()

    def give_back(self, connection: httpcore.ConnectionInterface) -> None:
        """Keep a connection for the next request, where it can serve one."""
        with self._lock:
            if connection.is_available() and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle, and what will be."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


_FAILURES: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def translated(error: Exception, method: str, where: str) -> OciError:
    """Every exception of httpcore as one of ours."""
    text = printable(str(error))
    if isinstance(error, httpcore.LocalProtocolError):
        text = text.partition(" b")[0]
    lost = isinstance(error, httpcore.TimeoutException | httpcore.NetworkError)
    # These are h11's words for a connection that ended too early, which it does not tell apart by type.
    ended = isinstance(error, httpcore.RemoteProtocolError) and any(
        words in text for words in ("disconnected", "peer closed connection", "Server closed")
    )
    if lost or ended:
        return Unreachable(f"{method} {where}: {text}", method=method, url=where, temporary=True)
    if isinstance(error, httpcore.ProxyError):
        return Unreachable(f"{method} {where}: the proxy refuses: {text}", method=method, url=where)
    return RegistryError(f"{method} {where}: not HTTP as it should be: {text}", method=method, url=where)
