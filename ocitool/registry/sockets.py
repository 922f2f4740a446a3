"""Sockets that are opened only to permitted addresses, and that mind the pace of their peers."""

from __future__ import annotations

import errno
import math
import os
import select
import selectors
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import httpcore

from ocitool.errors import Unreachable
from ocitool.registry.addresses import Reach, permitted

if TYPE_CHECKING:
    from collections.abc import Iterable

_READ_BYTES: Final = 256 << 10
"""What is asked of a socket at once for a body; httpcore's own 64 KiB cost more time per byte."""

_STAGGER: Final = 0.25  # seconds between attempts on the addresses of one name (RFC 8305: 250 ms)


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a peer may be.

    Attributes:
        connect: seconds for name, connection and TLS handshake each.
        answer: seconds from the last byte of a request to the last one of the response's header.
        commit: the same, after an upload: a registry may have gigabytes to move before it answers.
        idle: seconds without a byte of a body, or in which none could be sent.
        minimum_rate: bytes per second of a body, on average over `idle` seconds of waiting; 0 for any.
    """

    connect: float = 15.0
    answer: float = 60.0
    commit: float = 600.0
    idle: float = 60.0
    minimum_rate: float = 1024.0


class PlainAnswer(Unreachable):
    """The peer does not speak TLS, or nobody listens: http may be tried, where that is allowed at all."""


class Streams:
    """The open sockets, so that they can be interrupted. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Stream] = set()

    def add(self, stream: Stream) -> None:
        """A socket has been opened."""
        with self._lock:
            self._open.add(stream)

    def discard(self, stream: Stream) -> None:
        """A socket is closed, or has become another's."""
        with self._lock:
            self._open.discard(stream)

    def interrupt(self) -> None:
        """Make whoever waits for a socket stop waiting."""
        with self._lock:
            for stream in self._open:
                stream.interrupt()


class Backend(httpcore.NetworkBackend):
    """Opens sockets, to permitted addresses only."""

    def __init__(self, reach: Reach, pace: Pace, streams: Streams) -> None:
        self._reach = reach
        self._pace = pace
        self._streams = streams

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        """Connect; see httpcore.

        Raises:
            Unreachable: no address answers, or one may not be connected to.
        """
        addresses = permitted(host, port, self._reach)
        sock = _connect(host, port, addresses, timeout or self._pace.connect)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Stream(sock, f"{host}:{port}", self._pace, self._streams)


class ProxyBackend(Backend):
    """Opens sockets to a proxy, whose address nobody has typed."""

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        """Connect; see httpcore.

        Raises:
            Unreachable: no address of the proxy answers.
        """
        try:
            return super().connect_tcp(*arguments, **options)
        except Unreachable as error:
            error.hint = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names this proxy; NO_PROXY makes exceptions"
            raise


def _connect(
    host: str, port: int, addresses: list[tuple[socket.AddressFamily, str]], timeout: float
) -> socket.socket:
    """Connect to whichever address answers first; each gets a head start over the next (RFC 8305)."""
    deadline = time.monotonic() + timeout
    waiting = list(addresses)
    failure: OSError | None = None
    with selectors.DefaultSelector() as selector:
        try:
            while (waiting or selector.get_map()) and time.monotonic() < deadline:
                if waiting:
                    failure = _start(selector, *waiting.pop(0), port) or failure
                pause = _STAGGER if waiting else deadline - time.monotonic()
                for key, _ in selector.select(max(pause, 0)) if selector.get_map() else ():
                    sock = cast("socket.socket", key.fileobj)
                    selector.unregister(sock)
                    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not error:
                        return sock
                    failure = OSError(error, os.strerror(error))
                    sock.close()
        finally:
            for key in list(selector.get_map().values()):
                cast("socket.socket", key.fileobj).close()
    if failure is None:
        raise Unreachable(f"{host}:{port} does not answer within {timeout:g} seconds", temporary=True)
    kind = PlainAnswer if failure.errno == errno.ECONNREFUSED else Unreachable
    raise kind(f"{host}:{port} can't be reached: {failure.strerror}", temporary=True) from failure


def _start(
    selector: selectors.BaseSelector, family: socket.AddressFamily, address: str, port: int
) -> OSError | None:
    """Begin to connect; an address of a family that this machine lacks fails at once."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return error
    sock.setblocking(False)
    code = sock.connect_ex((address, port))
    if code not in {0, errno.EINPROGRESS}:
        sock.close()
        return OSError(code, os.strerror(code))
    selector.register(sock, selectors.EVENT_WRITE)
    return None


class Stream(httpcore.NetworkStream):
    """A socket that minds the pace of its peer."""

    def __init__(self, sock: socket.socket, peer: str, pace: Pace, streams: Streams) -> None:
        self._sock = sock
        self._peer = peer
        self._pace = pace
        self._streams = streams
        self._sent: float | None = None  # when the last byte of a request that is not answered yet was
        self._waited = 0.0
        self._received = 0
        self._patience = sock.gettimeout()
        streams.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive; see httpcore."""
        started = time.monotonic()
        # A header must come whole within its time, however it drips; a body must only go on coming.
        if self._sent is None:
            limit = patience = self._pace.idle
            wanted = max(max_bytes, _READ_BYTES)
        else:
            limit = timeout or self._pace.answer
            patience = _tenths(self._sent + limit - started)
            wanted = max_bytes  # what is larger, the allocator maps and unmaps for every header
        try:
            self._be_patient(patience)
            data = self._sock.recv(wanted)
        except TimeoutError as error:
            why = "has been silent for" if self._sent is None else "has not answered in full in"
            raise httpcore.ReadTimeout(f"{self._peer} {why} {limit:g} seconds") from error
        except OSError as error:
            raise httpcore.ReadError(f"connection to {self._peer} lost: {_reason(error)}") from error
        if self._sent is None:
            self._judge(time.monotonic() - started, len(data))
        return data

    def _be_patient(self, seconds: float | None) -> None:
        """Set the socket's timeout, where it is not the same: that costs a system call, and the lock."""
        if seconds != self._patience:
            self._sock.settimeout(seconds)
            self._patience = seconds

    def _judge(self, waited: float, received: int) -> None:
        """Measure a body only while we wait for it: our own pauses are not the peer's."""
        self._waited += waited
        self._received += received
        if self._waited < self._pace.idle:
            return
        rate = self._received / self._waited
        self._waited, self._received = 0.0, 0
        if rate < self._pace.minimum_rate:
            raise httpcore.ReadTimeout(
                f"{self._peer} sends {rate:.0f} bytes per second, less than {self._pace.minimum_rate:g}"
            )

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; see httpcore."""
        if not buffer:
            return
        rest = memoryview(buffer)
        try:
            if self._sent is not None and self._answered_early():
                # httpcore stops sending at a write error, and reads the answer.
                raise httpcore.WriteError(f"{self._peer} answered before it had read the request")
            self._be_patient(timeout)
            while rest:
                rest = rest[self._sock.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(
                f"{self._peer} has taken nothing for {self._pace.idle:g} seconds"
            ) from error
        except OSError as error:
            raise httpcore.WriteError(f"connection to {self._peer} lost: {_reason(error)}") from error
        self._sent = time.monotonic()

    def _answered_early(self) -> bool:
        # Under TLS what is readable may be a session ticket, so there the end of the request is awaited.
        if isinstance(self._sock, ssl.SSLSocket):
            return False
        return _readable(self._sock)

    def answered(self) -> None:
        """The response's header has come; from here on its body is measured."""
        self._sent = None
        self._waited, self._received = 0.0, 0

    def interrupt(self) -> None:
        """Make whoever waits for this socket stop waiting."""
        with suppress(OSError):
            # SSLSocket has a shutdown of its own, which another thread must not call.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; see httpcore."""
        self._streams.discard(self)
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Go on in TLS; see httpcore.

        Raises:
            Unreachable: the handshake fails.
        """
        self._streams.discard(self)
        try:
            self._sock.settimeout(timeout or self._pace.connect)
            secure = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except OSError as error:
            self._sock.close()
            raise _handshake_failure(self._peer, error) from error
        return Stream(secure, self._peer, self._pace, self._streams)

    def get_extra_info(self, info: str) -> object:
        """What httpcore asks: whether an idle connection has been closed by its peer."""
        if info == "is_readable":
            return _readable(self._sock)
        return self._sock if info == "socket" else None


def _tenths(seconds: float) -> float:
    """A rest of time, rounded up so that it mostly is the whole still; what is over is over."""
    return max(math.ceil(seconds * 10) / 10, 0.001)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)


# By OpenSSL's X509_V_ERR_…; all others are about who signed the certificate.
_TOO_EARLY, _TOO_LATE, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_CERTIFICATE_HINTS: Final = {
    _TOO_EARLY: "is this machine's clock right?",
    _TOO_LATE: "is this machine's clock right? if it is, the registry needs a new certificate",
    _OTHER_NAME: "ask for the registry by a name that is in its certificate",
    _OTHER_ADDRESS: "ask for the registry by a name that is in its certificate",
}


def _handshake_failure(peer: str, error: OSError) -> Unreachable:
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _CERTIFICATE_HINTS.get(error.verify_code, "add its CA with --ca-file or in certs.d")
        return Unreachable(
            f"the certificate of {peer} is not valid: {error.verify_message.removesuffix('.')}",
            hint=f"{hint}; --tls-verify=false trusts anyone",
        )
    if isinstance(error, TimeoutError):
        return Unreachable(f"{peer} does not finish its TLS handshake", temporary=True)
    reason = _reason(error)
    if isinstance(error, ssl.SSLEOFError | ConnectionError) or reason in _NOT_TLS:
        return PlainAnswer(
            f"{peer} does not speak TLS: {reason}",
            hint="--plain-http is for registries without TLS",
            temporary=reason not in _NOT_TLS,
        )
    return Unreachable(f"TLS with {peer} failed: {reason}", hint="does it ask for a client certificate?")


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
