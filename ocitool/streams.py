"""Readers that check what passes through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ocitool.digest import Digest, new_hasher
from ocitool.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
"""How much is read at once, in bytes: large enough that Python's share of the work vanishes."""


class Reader(Protocol):
    """Anything that bytes can be read from; a file is one, and so is a wrapper of six lines."""

    def read(self, n: int = -1, /) -> bytes:
        """Up to n bytes (all that are left where n is negative); b"" only at the end."""
        ...


def chunks(reader: Reader, size: int = CHUNK) -> Iterator[bytes]:
    """What a reader holds, piece by piece."""
    while chunk := reader.read(size):
        yield chunk


class VerifiedReader:
    """Passes on bytes and raises, before the end is told, if they are not those of a digest and size.

    image-spec, descriptor.md: "Before calculating the digest, the size of the content SHOULD be verified
    to reduce hash collision space." So reading stops at the first byte too many.

    The reader's word is given only at the end: what it passed on before may be wrong, so nothing may be
    made visible until `read` has returned b"". Once it has raised, it raises again whenever it is asked.
    """

    def __init__(self, reader: Reader, digest: Digest, size: int, *, prefix: bytes = b"") -> None:
        """Check `prefix` + what `reader` holds; `prefix` is what the caller has of the content already."""
        self._reader = reader
        self._digest = digest
        self._size = size
        self._hasher = new_hasher(digest.algorithm)
        self._hasher.update(prefix)
        self._seen = len(prefix)
        self._verified = False

    def read(self, n: int = -1, /) -> bytes:
        """Read on.

        Raises:
            IntegrityError: more or fewer bytes than the size, or another digest.
        """
        if n == 0 or self._verified:
            return b""
        if n < 0:
            return b"".join(chunks(self))
        # One byte more than is due, so that an endless stream is found out without being read. Nothing is
        # due any more where a caller reads on after an error.
        due = max(self._size - self._seen + 1, 0)
        data = self._reader.read(min(n, due)) if due else b""
        self._seen += len(data)
        if self._seen > self._size:
            raise IntegrityError(
                f"{self._digest} is longer than the {self._size} bytes that its descriptor promises",
                expected=str(self._size),
            )
        self._hasher.update(data)
        if not data:
            self._finish()
        return data

    def _finish(self) -> None:
        if self._seen != self._size:
            raise IntegrityError(
                f"{self._digest} ended after {self._seen} of {self._size} bytes",
                expected=str(self._size),
                actual=str(self._seen),
            )
        actual = self._hasher.hexdigest()
        if actual != self._digest.hex:
            raise IntegrityError(
                f"content of {self._digest} has the digest {self._digest.algorithm}:{actual}",
                expected=str(self._digest),
                actual=f"{self._digest.algorithm}:{actual}",
            )
        self._verified = True


class CountingReader:
    """Passes on bytes and reports how many, as they pass."""

    def __init__(self, reader: Reader, report: Callable[[int], None]) -> None:
        self._reader = reader
        self._report = report

    def read(self, n: int = -1, /) -> bytes:
        """Read on."""
        data = self._reader.read(n)
        if data:
            self._report(len(data))
        return data
