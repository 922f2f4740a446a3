"""The registry as an ASGI application: from a request to an answer, and every error into one."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ocitool.errors import (
    Conflict,
    IntegrityError,
    InvalidContent,
    InvalidDigest,
    InvalidReference,
    NotFound,
    OciError,
    RegistryError,
    Unsupported,
)
from ocitool.serve import metrics, passwords, routes
from ocitool.serve.messages import Content, Disconnected, Refused, Request, Response
from ocitool.serve.service import Options, Served, Service
from ocitool.serve.streaming import Stream

if TYPE_CHECKING:
    from ocitool.serve.messages import FileTransfer, Receive, Scope, Send
    from ocitool.serve.repositories import Repositories

# What stands in a path of this registry; the rest is escaped, so that no log is misled.
_SAFE: Final = "/:@=._-"
_CLIENT_GONE: Final = 499  # what web servers' logs call it; never sent


def create_app(repositories: Repositories, options: Options | None = None) -> Registry:
    """A registry of some repositories, for any ASGI server."""
    return Registry(repositories, options or Options())


class Registry:
    """An ASGI 3 application that speaks the distribution specification."""

    def __init__(self, repositories: Repositories, options: Options) -> None:
        self._service = Service(repositories, options)
        self._options = options
        self._metrics = metrics.Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(Request(scope, receive, idle_seconds=self._options.idle_seconds), send)

    def close(self) -> None:
        """Let go of what requests left behind; for whoever runs no lifespan."""
        self._service.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _serve(self, request: Request, send: Send) -> None:
        started = time.perf_counter()
        self._metrics.in_flight += 1
        exchange = _Exchange(self._service, self._metrics, request)
        try:
            await exchange.run(send)
        finally:
            self._metrics.in_flight -= 1
            served = Served(
                request.client,
                request.user,
                request.method,
                quote(request.path, safe=_SAFE),
                exchange.kind,
                exchange.status,
                request.received,
                exchange.sent,
                time.perf_counter() - started,
                request.headers.get("user-agent", ""),
                exchange.failure,
            )
            self._metrics.count(served)
            self._options.on_request(served)


class _Exchange:
    """One request and its answer."""

    def __init__(self, service: Service, figures: metrics.Metrics, request: Request) -> None:
        self._service = service
        self._figures = figures
        self._request = request
        self.kind = ""
        self.status = _CLIENT_GONE
        self.sent = 0
        self.failure: BaseException | None = None
        self._unknown = "NAME_UNKNOWN"
        self._stream: Stream | None = None

    async def run(self, send: Send) -> None:
        """Find the answer and send it."""
        try:
            response = await self._answer()
            await self._send(response, send)
        except Disconnected:
            self.status = _CLIENT_GONE
        finally:
            if self._stream:
                self._stream.close()

    async def _answer(self) -> Response:
        """The answer, whatever happens."""
        try:
            self._request.check_framing()
            await self._authenticate()
            return await self._opened(await self._handle())
        except Refused as refused:
            return refused.response()
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the error
            answer = refusal(error, self._unknown, writing=self._request.method not in {"GET", "HEAD"})
            # What the client asks for wrongly is no failure of the server's; what an upstream says is.
            if answer.status >= 500 or isinstance(error, RegistryError):
                self.failure = error
            return answer.response()

    async def _handle(self) -> Response:
        """The answer of the handler that the path and the method have."""
        if self._request.path == "/metrics" and self._service.options.metrics:
            self.kind = "metrics"
            figures = self._figures.render(len(self._service.uploads))
            return Response(200, {"content-type": metrics.MEDIA_TYPE}, figures)
        route, target = routes.find(self._request.path)
        self.kind, self._unknown = route.kind, route.unknown
        handler = route.handlers.get(self._request.method)
        if handler is None:
            allowed = ", ".join(sorted(route.handlers))
            raise Refused(405, "UNSUPPORTED", f"use one of {allowed} here", headers={"allow": allowed})
        return await handler(self._service, self._request, target)

    async def _authenticate(self) -> None:
        known = self._service.options.passwords
        if known is None:
            return
        credentials = passwords.basic(self._request.headers.get("authorization", ""))
        try:
            if credentials is None or not await self._service.run(lambda: known.check(*credentials)):
                raise passwords.challenge()
        except OciError as error:
            # Who asks is not known yet, so only the log is told what is wrong.
            self.failure = error
            raise Refused(500, "UNKNOWN", "this registry can't tell now who may use it") from error
        self._request.user = credentials[0]

    async def _opened(self, response: Response) -> Response:
        if isinstance(response.body, Content) and self._request.method != "HEAD":
            stream = Stream(self._service, response.body)
            await stream.open()
            self._stream = stream
        return response

    async def _send(self, response: Response, send: Send) -> None:
        self.status = response.status
        headers = {
            **response.headers,
            "docker-distribution-api-version": "registry/2.0",
            # What is stored here is for tools; no browser is to take it for a page.
            "x-content-type-options": "nosniff",
        }
        if response.status not in {204, 304}:
            headers["content-length"] = str(response.length)
        encoded = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        body = response.body if isinstance(response.body, bytes) and self._request.method != "HEAD" else b""
        if self._stream and response.length:
            await self._send_stream(self._stream, response.length, send)
        else:
            self.sent = len(body)
            await send({"type": "http.response.body", "body": body})

    async def _send_stream(self, stream: Stream, length: int, send: Send) -> None:
        """Send opened content. Where it fails half-way the server breaks the unfinished answer off."""
        self._service.streams += 1
        try:
            transfer = stream.transfer(self._request, length)
            if transfer:
                self.sent = await self._run(transfer)
            else:
                async for piece in stream.pieces(self._request):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    self.sent += len(piece)
            if self.sent == length:
                await send({"type": "http.response.body", "body": b""})
            else:
                self.failure = IntegrityError(f"content ended {length - self.sent} bytes early")
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - the status has gone out, so only the log can be told
            self.failure = error
        finally:
            self._service.streams -= 1

    async def _run(self, transfer: FileTransfer) -> int:
        try:
            return await self._service.run(transfer.run)
        except asyncio.CancelledError:
            transfer.stop()  # the thread would go on
            raise


# The first that fits.
_REFUSALS: Final = (
    (InvalidDigest, 400, "DIGEST_INVALID"),
    (Unsupported, 400, "UNSUPPORTED"),
    (Conflict, 409, "DENIED"),
)
# Wrong content is the client's fault only where the client has sent it.
_REFUSALS_OF_WRITES: Final = (
    (IntegrityError, 400, "DIGEST_INVALID"),
    (InvalidContent, 400, "MANIFEST_INVALID"),
    (InvalidReference, 400, "MANIFEST_INVALID"),
)


def refusal(error: Exception, unknown: str, *, writing: bool) -> Refused:
    """What an error is to the client.

    Args:
        error: what was raised.
        unknown: the code of what is not there.
        writing: whether the client sent content.
    """
    if not isinstance(error, OciError):
        return Refused(500, "UNKNOWN", "something went wrong in the registry")
    # "The `<reference>` MUST NOT be in any other format." What is asked for in another one is not there.
    if isinstance(error, NotFound) or (isinstance(error, InvalidReference) and not writing):
        return Refused(404, unknown, error.message)
    if isinstance(error, RegistryError):  # an upstream's answer
        return _upstream(error)
    for kind, status, code in (*_REFUSALS, *(_REFUSALS_OF_WRITES if writing else ())):
        if isinstance(error, kind):
            return Refused(status, code, error.message)
    # The specification's codes are for 4XX answers; this is the server's own fault. RFC 4918, 11.5, of 507:
    # "the request MUST NOT be repeated until it is requested by a separate user action."
    full = isinstance(error.__cause__, OSError) and error.__cause__.errno in {errno.ENOSPC, errno.EDQUOT}
    return Refused(507 if full else 500, "UNKNOWN", error.message)


def _upstream(error: RegistryError) -> Refused:
    if error.status == 429:
        return Refused(429, "TOOMANYREQUESTS", error.message)
    return Refused(503 if error.temporary else 502, "UNKNOWN", error.message)
