"""One blob on its way into a registry: the upload session of distribution-spec, "Pushing blobs".

The session is a table of states and what may come of them; each state is one request. A blob goes whole in
one PUT. Only where that broke off, or where the user wants it, it goes in chunks, which can be continued
from where the registry got to.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from ocitool.errors import NotFound, OciError, RegistryError, Unreachable
from ocitool.registry import headers
from ocitool.registry.origins import follow
from ocitool.streams import CHUNK, Reader, VerifiedReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from ocitool.model import Descriptor
    from ocitool.registry.calls import Call
    from ocitool.registry.endpoint import Endpoint
    from ocitool.registry.responses import Answer
    from ocitool.registry.transport import Transport

_SMALL: Final = 1 << 20
"""Blobs up to this size, in bytes, are held in memory, so that their request can be repeated."""

_CHUNK: Final = 16 << 20
_LARGEST_CHUNK: Final = 1 << 30
_STORED: Final = frozenset({200, 201, 204})
_TAKEN: Final = frozenset({200, 201, 202, 204})
_OUT_OF_STEP: Final = 416


class State(enum.Enum):
    """Where an upload is."""

    WHOLE = enum.auto()  # PUT of everything
    CHUNK = enum.auto()  # PATCH of one chunk
    STATUS = enum.auto()  # GET: how far did it get?
    CLOSE = enum.auto()  # PUT that ends the session
    CHECK = enum.auto()  # HEAD: did it arrive, although nobody said so?
    DONE = enum.auto()


class Outcome(enum.Enum):
    """What came of a request."""

    STORED = enum.auto()  # the blob is there
    MORE = enum.auto()  # there are chunks left
    ALL = enum.auto()  # every byte is in the session
    LOST = enum.auto()  # no answer, or one that leaves open what happened


NEXT: Final = {
    (State.WHOLE, Outcome.STORED): State.DONE,
    (State.WHOLE, Outcome.LOST): State.CHECK,
    (State.CHUNK, Outcome.MORE): State.CHUNK,
    (State.CHUNK, Outcome.ALL): State.CLOSE,
    (State.CHUNK, Outcome.LOST): State.STATUS,
    (State.STATUS, Outcome.MORE): State.CHUNK,
    (State.STATUS, Outcome.ALL): State.CLOSE,
    (State.STATUS, Outcome.LOST): State.STATUS,
    (State.CLOSE, Outcome.STORED): State.DONE,
    (State.CLOSE, Outcome.LOST): State.CHECK,
    (State.CHECK, Outcome.STORED): State.DONE,
}


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that a registry has opened."""

    location: httpx.URL
    chunk_min: int = 0


def session_of(answer: Answer, endpoint: Endpoint) -> Session:
    """The session that a 202 opens.

    Raises:
        RegistryError: it does not say where, or names a place where we don't go.
    """
    minimum = answer.headers.get("oci-chunk-min-length", "")
    return Session(
        location_of(answer, endpoint), int(minimum) if minimum.isdecimal() and len(minimum) < 12 else 0
    )


def location_of(answer: Answer, endpoint: Endpoint) -> httpx.URL:
    """The Location of an answer.

    Raises:
        RegistryError: there is none, or one where we don't go.
    """
    location = answer.headers.get("location")
    if not location:
        raise RegistryError(
            f"{answer.method} {answer.where} answered {answer.status} without a Location",
            status=answer.status,
        )
    return follow(answer.url, location, endpoint.origin, "the upload location")


class Upload:
    """Sends one blob into a session; used once, by one thread."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        template: Call,
        desc: Descriptor,
        stream: Reader,
        exists: Callable[[Descriptor], bool],
        retries: int,
    ) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._template = template
        self._desc = desc
        self._stream = _Source(VerifiedReader(stream, desc.digest, desc.size))
        self._exists = exists
        self._retries = retries
        self._failures = 0
        self._failure: OciError | None = None
        self._chunk = b""
        self._at = 0  # where in the blob the chunk begins
        self._session: Session | None = None
        self._chunk_size = 0

    def run(self, session: Session, chunk_size: int) -> None:
        """Send the blob.

        Args:
            session: where to.
            chunk_size: bytes per chunk, or 0 to send it whole.

        Raises:
            IntegrityError: the stream is not what the descriptor names; the registry has not stored it.
            RegistryError: the registry refuses, or the upload broke off; then it is `temporary`.
        """
        self._session = session
        self._chunk_size = min(max(chunk_size, session.chunk_min), _LARGEST_CHUNK)
        steps = {
            State.WHOLE: self._whole,
            State.CHUNK: self._patch,
            State.STATUS: self._status,
            State.CLOSE: self._close,
            State.CHECK: self._check,
        }
        state = State.CHUNK if chunk_size and self._desc.size else State.WHOLE
        try:
            while state is not State.DONE:
                state = NEXT[state, steps[state]()]
        except BaseException as error:
            if error is self._stream.failure:
                self._cancel()
            raise

    def _whole(self) -> Outcome:
        size = self._desc.size
        body = b"".join(self._stream.pieces()) if size <= _SMALL else self._stream.pieces()
        call = self._call("PUT", self._final_url(), body=body, length=size, expect=_STORED)
        return self._sent(call, Outcome.STORED)

    def _patch(self) -> Outcome:
        if not self._chunk:
            self._chunk = self._stream.take(self._chunk_size)
        first, last = self._at, self._at + len(self._chunk) - 1
        call = self._call(
            "PATCH",
            self._open_session.location,
            # Sent only once: whether the registry got it, only its status tells.
            body=iter([self._chunk]),
            length=len(self._chunk),
            headers={"Content-Type": "application/octet-stream", "Content-Range": f"{first}-{last}"},
            expect=_TAKEN | {_OUT_OF_STEP},
        )
        outcome = self._sent(call, Outcome.MORE)
        if outcome is Outcome.LOST:
            return outcome
        # What the answer's Range says is not believed: some registries never move it.
        self._failures = 0
        return self._advance(last + 1)

    def _status(self) -> Outcome:
        """Ask how far the session got."""
        self._count_failure()
        call = self._call("GET", self._open_session.location, expect=_TAKEN)
        try:
            answer = self._transport.request(self._endpoint, call)
        except RegistryError as error:
            if error.temporary:
                self._failure = error
                return Outcome.LOST
            raise self._restart("can't tell how far its upload got") from error
        except OciError as error:
            raise self._restart("has forgotten its upload") from error
        if "location" in answer.headers:
            self._session = Session(location_of(answer, self._endpoint), self._open_session.chunk_min)
        reached = headers.upload_offset(answer.headers.get("range", "0-0"))
        if reached is None or not self._at <= reached <= self._at + len(self._chunk):
            raise self._restart("got to a place where it can't be continued")
        return self._advance(reached)

    def _close(self) -> Outcome:
        call = self._call("PUT", self._final_url(), body=b"", expect=_STORED)
        return self._sent(call, Outcome.STORED)

    def _check(self) -> Outcome:
        if self._stream.at_end and self._exists(self._desc):
            return Outcome.STORED
        raise self._restart("broke off") from self._failure

    def _advance(self, reached: int) -> Outcome:
        """Drop what the registry has of the chunk."""
        self._chunk = self._chunk[reached - self._at :]
        self._at = reached
        return Outcome.ALL if reached == self._desc.size else Outcome.MORE

    def _sent(self, call: Call, good: Outcome) -> Outcome:
        """Send a part of the blob; what leaves open whether it arrived is LOST."""
        try:
            answer = self._transport.request(self._endpoint, call)
        except NotFound as error:
            # An earlier request whose answer was lost may have ended the session, or the registry forgot it.
            self._failure = error
            if good is Outcome.MORE:
                raise self._restart("has forgotten its upload") from error
            return Outcome.LOST
        except RegistryError as error:
            if error is self._stream.failure or not error.temporary:
                raise
            self._failure = error
            return Outcome.LOST
        if answer.status == _OUT_OF_STEP:
            self._failure = RegistryError(f"{call.what}: the registry is at another byte", status=416)
            return Outcome.LOST
        if good is Outcome.MORE and "location" in answer.headers:
            # "Each consecutive chunk upload SHOULD use the <location> provided in the response to the
            # previous chunk upload."
            self._session = Session(location_of(answer, self._endpoint), self._open_session.chunk_min)
        return good

    def _count_failure(self) -> None:
        self._failures += 1
        error = self._failure or Unreachable("the upload broke off", temporary=True)
        if self._failures >= self._retries:
            raise self._restart("broke off again and again") from error
        self._transport.back_off(self._template.what, error, self._failures)

    def _restart(self, why: str) -> RegistryError:
        """The error that makes the caller begin anew: what has been sent is gone from the stream."""
        last = f" ({self._failure.message})" if self._failure else ""
        return RegistryError(f"{self._template.what}: {self._endpoint.name} {why}{last}", temporary=True)

    def _cancel(self) -> None:
        """Let the registry forget the session; some want a right for that which we lack."""
        with suppress(OciError):
            call = self._call("DELETE", self._open_session.location, expect=frozenset(range(200, 600)))
            self._transport.request(self._endpoint, call)

    def _call(self, method: str, target: httpx.URL, **fields: Any) -> Call:
        fields.setdefault("commits", "body" in fields)
        fields.setdefault("headers", {"Content-Type": "application/octet-stream"} if "body" in fields else {})
        return replace(self._template, method=method, target=target, **fields)

    @property
    def _open_session(self) -> Session:
        return cast("Session", self._session)  # set first thing in `run`

    def _final_url(self) -> httpx.URL:
        # "<location>?digest=<digest>": "The <location> MAY contain critical query parameters."
        url = self._open_session.location
        digest = f"digest={self._desc.digest.algorithm}%3A{self._desc.digest.hex}".encode()
        return url.copy_with(query=url.query + b"&" + digest if url.query else digest)


class _Source:
    """A verified stream whose last piece is handed out only once all of it has been verified."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ahead: bytes | None = None
        self.at_end = False
        self.failure: BaseException | None = None

    def pieces(self) -> Iterator[bytes]:
        """What is left, piece by piece."""
        while piece := self.take(CHUNK):
            yield piece

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end.

        Raises:
            IntegrityError: the stream is not what it should be.
        """
        taken = [self._ahead or b""]
        missing = size - len(taken[0])
        while missing > 0 and (data := self._read(missing)):
            taken.append(data)
            missing -= len(data)
        whole = b"".join(taken)
        piece, self._ahead = whole[:size], whole[size:]
        if not self._ahead:
            self._ahead = self._read(CHUNK)
        self.at_end = not self._ahead
        return piece

    def _read(self, n: int) -> bytes:
        try:
            return self._reader.read(n)
        except BaseException as error:
            self.failure = error
            raise
