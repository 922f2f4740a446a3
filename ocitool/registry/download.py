"""One blob on its way from a registry: resumed where it breaks off, in parallel ranges where it is slow."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocitool.errors import IntegrityError, OciError, RegistryError, Unreachable
from ocitool.registry import headers
from ocitool.registry.text import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import NoReturn, Self

    import httpx

    from ocitool.model import Descriptor
    from ocitool.registry.calls import Call, Live
    from ocitool.registry.endpoint import Endpoint
    from ocitool.registry.transport import Transport

_PROGRESS: Final = 1 << 20
"""So many bytes since the last failure, and the count of failures starts anew."""

_SEGMENT: Final = 5 << 20
"""A range of a parallel download, in bytes; one more of them is held in memory than there are connections."""

_SLOW: Final = 50 << 20
"""Bytes per second of a connection below which more connections are tried: CDNs cap each at 10 to 25 MB/s."""

_SAMPLE: Final = 0.3
"""Seconds of waiting over which a connection's rate is measured."""


class Download:
    """Reads one blob from `offset` on, between `start` and `close`. The bytes are not verified.

    Args:
        transport: sends the requests.
        endpoint: the registry.
        call: the GET of the whole blob.
        desc: the blob.
        offset: where to begin, in bytes.
        ranges: connections to use where one is slow.
        slot: held by the one download of a client that uses several connections, so that memory is bounded.
        retries: how many failures without progress there may be.

    Attributes:
        origin: the server that sent the bytes, which may be a storage that the registry redirects to.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - made in one place
        self,
        transport: Transport,
        endpoint: Endpoint,
        call: Call,
        desc: Descriptor,
        offset: int,
        ranges: int,
        slot: threading.Lock,
        retries: int,
    ) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._call = call
        self._size = desc.size
        self._at = offset
        self._ranges = ranges
        self._slot = slot
        self._retries = retries
        self._failures = 0
        self._failed_at = offset
        self._over = threading.Event()
        self._response = ExitStack()  # closes the response that is being read
        self._place: httpx.URL | None = None
        self.origin = endpoint.origin
        self._pieces: Generator[bytes, None, None] = _nothing()
        self._rest = b""

    def start(self) -> Self:
        """Send the first request.

        Raises:
            OciError: the registry does not have the blob, or does not answer.
        """
        if self._at < self._size or self._size == 0:
            try:
                self._pieces = self._serial(self._open())
            except BaseException:
                self._response.close()
                raise
        return self

    def close(self) -> None:
        """End it, also in the middle."""
        self._over.set()
        self._pieces.close()
        self._response.close()

    def read(self, n: int = -1, /) -> bytes:
        """Read on.

        Raises:
            Unreachable: the connection breaks again and again.
            IntegrityError: the registry says that the blob has another size.
        """
        if n < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        chunk = self._rest or next(self._pieces, b"")
        self._rest = chunk[n:]
        return chunk if len(chunk) <= n else chunk[:n]

    def _serial(self, live: Live) -> Generator[bytes, None, None]:
        """The blob over one connection at a time, until that proves slow."""
        while True:
            try:
                slow = yield from self._measured(live)
                failure = Unreachable(
                    f"{self._call.what} broke off after {self._at} of {self._size} bytes", temporary=True
                )
            except Unreachable as error:
                slow, failure = False, error
            self._response.close()
            if slow:
                yield from self._parallel()
            if self._at >= self._size:
                return
            if not slow:
                self._failed(failure)
            live = self._open()

    def _measured(self, live: Live) -> Generator[bytes, None, bool]:
        """The rest of one response; True where it was left because more connections promise more."""
        body = self._body(live)
        waited, received = 0.0, 0
        while True:
            before = time.monotonic()
            chunk = next(body, b"")
            waited += time.monotonic() - before
            received += len(chunk)
            self._at += len(chunk)
            if not chunk:
                return False
            yield chunk
            if waited > _SAMPLE:
                if received / waited < _SLOW and self._divisible(live) and self._slot.acquire(blocking=False):
                    return True
                waited, received = 0.0, 0

    def _divisible(self, live: Live) -> bool:
        """Whether the rest is worth several connections, and the server can serve them."""
        ranges = live.status == 206 or live.headers.get("accept-ranges", "").lower() == "bytes"
        return ranges and self._ranges > 1 and self._size - self._at > 4 * _SEGMENT

    def _open(self) -> Live:
        """Ask for what is missing."""
        fields = {**self._call.headers, "Range": f"bytes={self._at}-"} if self._at else self._call.headers
        call = replace(self._call, headers=fields, expect=frozenset({200, 206, 416}))
        live = self._response.enter_context(self._transport.open(self._endpoint, call))
        if live.status == 416:
            # A server that does not know ranges; if it has fewer bytes than it should, the whole will tell.
            self._response.close()
            live = self._response.enter_context(self._transport.open(self._endpoint, self._call))
        self._place = None if live.at_home else live.url
        self.origin = live.reply.origin
        if live.status == 206:
            self._check_range(live, self._at, self._size - 1)
        else:
            length = live.headers.get("content-length", str(self._size))
            if length != str(self._size):
                self._mismatch(live, length)
        return live

    def _body(self, live: Live) -> Iterator[bytes]:
        """A response's bytes from where we are; a whole blob in answer to a range is read past."""
        skip = self._at if live.status == 200 else 0
        for chunk in live.body():
            if skip < len(chunk):
                yield chunk[skip:] if skip else chunk
            skip = max(0, skip - len(chunk))

    def _check_range(self, live: Live, first: int, last: int) -> None:
        """Bytes are joined only where the server says that they belong together."""
        got = headers.content_range(live.headers.all("content-range"))
        if got is not None and got.total not in {None, self._size}:
            self._mismatch(live, str(got.total))
        if got is None or got.first != first or got.last > last:
            said = printable(live.headers.get("content-range", "no range"), 100)
            raise RegistryError(
                f"{self._call.what}: asked for the bytes {first} to {last},"
                f" {live.where} answered with {said}",
                url=live.where,
                status=live.status,
            )

    def _mismatch(self, live: Live, length: str) -> NoReturn:
        raise IntegrityError(
            f"{self._call.what} has {printable(length, 30)} bytes at {live.where};"
            f" its descriptor promises {self._size}",
            expected=str(self._size),
            actual=printable(length, 30),
        )

    def _failed(self, error: Unreachable) -> None:
        """Count a failure, and wait; progress is forgiven much."""
        if self._at - self._failed_at >= _PROGRESS:
            self._failures = 0
        self._failed_at = self._at
        self._failures += 1
        if self._failures >= self._retries or not error.temporary:
            raise error
        self._transport.back_off(self._call.what, error, self._failures)

    def _parallel(self) -> Iterator[bytes]:
        """The rest in ranges over several connections, in order; a server that gives up ends it early."""
        pending: deque[Future[bytearray]] = deque()
        with ThreadPoolExecutor(self._ranges, "ocitool-range") as pool:
            try:
                for start in range(self._at, self._size, _SEGMENT):
                    pending.append(pool.submit(self._segment, start, min(start + _SEGMENT, self._size)))
                    if len(pending) > self._ranges:
                        yield from self._arrived(pending.popleft())
                while pending:
                    yield from self._arrived(pending.popleft())
            except _Whole:
                self._ranges = 1
            finally:
                self._over.set()
                pool.shutdown(cancel_futures=True)
                self._over.clear()
                self._slot.release()

    def _arrived(self, segment: Future[bytearray]) -> Iterator[bytes]:
        content = memoryview(segment.result())
        for i in range(0, len(content), _PROGRESS):
            piece = bytes(content[i : i + _PROGRESS])
            self._at += len(piece)
            yield piece

    def _segment(self, start: int, end: int) -> bytearray:
        """The bytes from `start` up to `end`; what breaks off is resumed."""
        content = bytearray()
        failures = 0
        while len(content) < end - start:
            before = len(content)
            try:
                self._fill(content, start, end)
                failure = Unreachable(f"{self._call.what}: a range ended early", temporary=True)
            except Unreachable as error:
                failure = error
            if len(content) < end - start:
                failures = 1 if len(content) - before >= _PROGRESS else failures + 1
                if failures >= self._retries or not failure.temporary or self._over.is_set():
                    raise failure
                self._transport.back_off(self._call.what, failure, failures)
        return content

    def _fill(self, content: bytearray, start: int, end: int) -> None:
        first = start + len(content)
        fields = {**self._call.headers, "Range": f"bytes={first}-{end - 1}"}
        call = replace(self._call, headers=fields, expect=frozenset({200, 206}))
        with ExitStack() as stack:
            live = self._at_place(stack, call) or stack.enter_context(
                self._transport.open(self._endpoint, call)
            )
            if live.status != 206:
                raise _Whole
            self._check_range(live, first, end - 1)
            for chunk in live.body():
                missing = end - start - len(content)
                content += chunk[:missing]
                # Past the last byte there may be no end.
                if len(chunk) > missing or self._over.is_set():
                    return

    def _at_place(self, stack: ExitStack, call: Call) -> Live | None:
        """Ask where the registry sent us before, which saves it a request; that place need not last."""
        place = self._place
        if place is not None:
            with suppress(OciError):
                live = stack.enter_context(
                    self._transport.open(self._endpoint, replace(call, target=place, expect=frozenset({206})))
                )
                if live.status == 206:
                    return live
            self._place = None
        return None


def _nothing() -> Generator[bytes, None, None]:
    yield from ()


class _Whole(Exception):
    """A server that said it knew ranges sent the whole blob."""
