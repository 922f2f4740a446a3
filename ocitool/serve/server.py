"""A registry on a port: uvicorn around the application.

uvicorn, because it is kept well, is small, and needs only what is installed anyway: it parses with h11,
which httpx uses too.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict, OciError
from ocitool.serve.app import create_app
from ocitool.serve.certificates import Certificate
from ocitool.serve.repositories import Tended
from ocitool.serve.service import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType
    from typing import Self

    import uvicorn

    from ocitool.serve.repositories import Repositories

_BACKLOG: Final = 1024
_KEEP_ALIVE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 30.0
_STALLED_MILLISECONDS: Final = 120_000
_CHECK_SECONDS: Final = 1.0
_FILES: Final = 16_384


class Server:
    """A registry that listens from `__enter__` on and has stopped after `__exit__`.

    It runs in a thread of its own, so a test or a demonstration can talk to it.
    """

    def __init__(
        self,
        repositories: Repositories,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        options: Options | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            repositories: what is served.
            host: the address to listen on.
            port: the port; 0 is any that is free.
            options: how the registry behaves.
            tls_cert: a PEM certificate chain, for HTTPS; it is read again when it changes.
            tls_key: its key, where that is another file.
            grace_seconds: how long requests under way may take to end once the server stops.
        """
        options = options or Options()
        self._app = create_app(repositories, options)
        self._options = options
        self._host = host
        self._port = port
        self._tls = (tls_cert, tls_key)
        self._grace_seconds = grace_seconds

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            Conflict: the address is in use, or is none of this machine's.
            InvalidContent: the certificate or the key can't be used.
        """
        listener = _listen(self._host, self._port)
        try:
            self._server = self._configured()
        except BaseException:
            listener.close()
            raise
        self._name: tuple[str, int] = listener.getsockname()[:2]
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="ocitool-serve", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._app.close()

    @property
    def address(self) -> str:
        """HOST:PORT, as it stands in front of a repository's name."""
        host, port = self._name
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """Where the registry is."""
        return f"{'https' if self._tls[0] else 'http'}://{self.address}"

    def hurry(self) -> None:
        """Do not wait for requests under way."""
        self._server.force_exit = True

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def _configured(self) -> uvicorn.Server:
        import uvicorn

        from ocitool.serve.connections import Connection

        # Requests are reported by event; what uvicorn has to say besides is for whoever sets up logging.
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        cert, key = self._tls
        certificate = Certificate(cert, key, self._options.on_failure) if cert else None
        config = uvicorn.Config(
            self._app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a client's word about its own address
            backlog=_BACKLOG,
            limit_concurrency=self._options.connections,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(self._grace_seconds)),
            ssl_certfile=cert,
            ssl_keyfile=key,
        )
        config.load()
        if certificate and config.ssl:
            certificate.guard(config.ssl)
        return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Conflict(f"{host} is not an address to listen on: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A client that has stopped reading would hold its connection, and a piece of a blob, for ever.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MILLISECONDS)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"can't listen on {host}:{port}: {error.strerror}", hint="port 0 is any that is free"
        ) from error
    return listener


def serve(
    repositories: Repositories,
    host: str,
    port: int,
    *,
    options: Options | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then let requests under way end; a second signal cuts them off.

    Args:
        repositories: what is served.
        host: the address to listen on.
        port: the port; 0 is any that is free.
        options: how the registry behaves.
        tls_cert: a PEM certificate chain, for HTTPS; it is read again when it changes.
        tls_key: its key, where that is another file.
        on_ready: is told HOST:PORT once connections are accepted.

    Raises:
        Conflict, InvalidContent: as `Server.__enter__`.
    """
    _allow_many_files()
    server = Server(
        repositories,
        host=host,
        port=port,
        options=options,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    stop = threading.Event()

    def stopped(*_: object) -> None:
        if stop.is_set():
            server.hurry()
        stop.set()

    with _handled(stopped), server:
        on_ready(server.address)
        while not stop.wait(_CHECK_SECONDS):
            if not server.is_alive:
                raise OciError("the server has stopped by itself")
            if isinstance(repositories, Tended):
                repositories.tend()


def _allow_many_files() -> None:
    """Raise this process's own limit: each client may take three files, and 1,024 are a common limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the two signals that end a server, where this thread is the one that can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
