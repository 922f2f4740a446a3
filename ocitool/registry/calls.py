"""What is asked of a registry, and what comes back."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ocitool.errors import RegistryError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import httpx

    from ocitool.registry.connections import Reply
    from ocitool.registry.headers import Fields

_SHORT: Final = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One thing to ask of a registry.

    Attributes:
        method: of HTTP.
        target: a path at the registry, with its query, or a URL that the registry gave.
        what: what is wanted, for errors: "manifest latest of host/name".
        repository: whose credentials count.
        scopes: what a token must permit.
        headers: fields beyond the usual ones.
        body: bytes, or a stream that can be sent only once.
        length: the number of bytes of such a stream.
        commits: whether the registry may have much to do before it answers.
        bare: for a token service: it brings its own authorization, and stays where it is sent.
        expect: the statuses that the caller understands; the others are errors.
        limit: how many bytes of a body are read at most.
    """

    method: str
    target: str | httpx.URL
    what: str
    repository: str = ""
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] | None = None
    length: int = 0
    commits: bool = False
    bare: bool = False
    expect: frozenset[int] = frozenset({200})
    limit: int = 8 << 20

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again."""
        return self.body is None or isinstance(self.body, bytes)


@dataclass(frozen=True, slots=True)
class Live:
    """A response whose body is still to come.

    Attributes:
        at_home: whether it is the registry's own, not that of a server it redirected to.
        repeated: whether an earlier request was lost, so that this one may have found its effect.
    """

    reply: Reply
    at_home: bool
    repeated: bool = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.reply.status

    @property
    def headers(self) -> Fields:
        """The header fields."""
        return self.reply.headers

    @property
    def url(self) -> httpx.URL:
        """Where the response came from."""
        return self.reply.url

    @property
    def where(self) -> str:
        """The same, fit to be shown."""
        return self.reply.where

    def body(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises (while iterating):
            Unreachable: the connection was lost.
        """
        return self.reply.body()

    def discard(self) -> None:
        """Close the response; a short body is read first, so that its connection can be used again."""
        length = self.headers.get("content-length", "")
        with suppress(Unreachable):
            if length.isdecimal() and int(length) <= _SHORT:
                deque(self.body(), maxlen=0)
        self.reply.close()

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            RegistryError: it is larger than `limit` bytes.
            Unreachable: the connection was lost.
        """
        content = bytearray()
        for chunk in self.body():
            content += chunk
            if len(content) > limit:
                raise RegistryError(
                    f"the answer of {self.where} is larger than {limit} bytes",
                    url=self.where,
                    status=self.status,
                )
        return bytes(content)
