"""Requests and responses, over what ASGI gives; nothing here knows what a registry is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Mapping

    from ocitool.content import Source
    from ocitool.model import Descriptor

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


SENDER: Final = "ocitool.file-sender"
"""Where a request's state has its connection, if that can send files: a `FileSender`."""


class FileTransfer(Protocol):
    """A file that the kernel sends, so that its bytes are not copied by us."""

    def run(self) -> int:
        """Send it, in a thread; how many bytes there were.

        Raises:
            Disconnected: the client has gone away.
        """
        ...

    def stop(self) -> None:
        """Make `run` end early."""
        ...


class FileSender(Protocol):
    """A connection through which the kernel can send files."""

    def transfer(self, file: io.FileIO, count: int) -> FileTransfer | None:
        """Send so many bytes, from where a file stands, as a part of the answer's body.

        None where that can't be done now. What is returned has to be run.
        """
        ...


class Refused(Exception):
    """An answer that is an error (distribution-spec, "Error Codes")."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> Response:
        """The error as the specification writes it."""
        error = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return json_response({"errors": [error]}, status=self.status, headers=self.headers)


class Disconnected(Exception):
    """The client has gone away; nobody is there to be answered."""


@dataclass(frozen=True, slots=True)
class Content:
    """A part of some content, to be streamed: from `start` up to, not including, `stop`."""

    source: Source
    descriptor: Descriptor
    start: int
    stop: int


@dataclass(slots=True)
class Response:
    """A status, headers, and a body in memory or to be streamed."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Content = b""

    @property
    def length(self) -> int:
        """The body's length in bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.stop - self.body.start


def json_response(
    value: Any,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that is a JSON document."""
    return Response(status, {"content-type": media_type, **(headers or {})}, json.dumps(value).encode())


class Request:
    """A request whose head has arrived; its body is read as it comes."""

    def __init__(self, scope: Scope, receive: Receive, *, idle_seconds: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {
            key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]
        }
        # Of a parameter that stands twice the first one counts.
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        self.query = dict(reversed(pairs))
        self.client: str = scope["client"][0] if scope.get("client") else ""
        self.user = ""
        # The kernel sends no file through TLS.
        is_plain = scope.get("scheme") == "http"
        self.sender: FileSender | None = scope.get("state", {}).get(SENDER) if is_plain else None
        self.received = 0
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._more = True

    async def body(self) -> AsyncIterator[bytes]:
        """The body, piece by piece.

        Raises:
            Disconnected: the client went away before all of it had come.
            Refused: nothing came for too long.
        """
        while self._more:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await self._receive()
            except TimeoutError:
                raise Refused(
                    408,
                    "BLOB_UPLOAD_INVALID",
                    f"no byte of the request's body has come for {self._idle_seconds:g} seconds",
                    headers={"connection": "close"},
                ) from None
            if message["type"] == "http.disconnect":
                raise Disconnected
            self._more = message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            self.received += len(piece)
            if piece:
                yield piece

    async def read(self, limit: int) -> bytes:
        """All of a body that fits in memory.

        Raises:
            Refused: it is larger than `limit` bytes.
        """
        # distribution-spec, "Pushing Manifests": "A registry that enforces this limit SHOULD respond to a
        # request to push a manifest over this limit with a response code `413 Payload Too Large`."
        too_large = Refused(413, "SIZE_INVALID", f"a manifest may have {limit} bytes at most")
        if (self.length or 0) > limit:
            raise too_large
        parts, size = [], 0
        async for piece in self.body():
            size += len(piece)
            if size > limit:
                raise too_large
            parts.append(piece)
        return b"".join(parts)

    def check_framing(self) -> None:
        """Refuse a body whose end two headers tell: a proxy before us may believe the other one.

        Raises:
            Refused: it has both.
        """
        # RFC 9112, 6.1: "A server MAY reject a request that contains both Content-Length and
        # Transfer-Encoding … Regardless, the server MUST close the connection after responding".
        if {"content-length", "transfer-encoding"} <= self.headers.keys():
            raise Refused(
                400,
                "UNSUPPORTED",
                "a request has either Content-Length or Transfer-Encoding",
                headers={"connection": "close"},
            )

    async def gone(self) -> None:
        """Return once the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @property
    def length(self) -> int | None:
        """The body's length in bytes, where the client says it."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None
