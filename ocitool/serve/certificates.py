"""A server's certificate that is read again when its files change, so that a renewal interrupts nobody."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from ocitool.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Certificate:
    """A certificate chain and its key, in PEM files."""

    def __init__(self, chain: Path, key: Path | None, on_failure: Callable[[Exception], None]) -> None:
        """Read the files.

        Args:
            chain: the certificate, then those that signed it.
            key: the key, where that is another file.
            on_failure: is told when changed files can't be used; what was read before serves on.

        Raises:
            InvalidContent: they can't be read, or do not belong together.
        """
        self._chain = chain
        self._key = key or chain
        self._on_failure = on_failure
        self._stamp = self._now()
        self._context = self._load()

    def guard(self, context: ssl.SSLContext) -> None:
        """Let a listening context present what the files hold at each handshake."""
        # Called once for each handshake, in its own thread, whether or not the client names a server.
        context.sni_callback = self._present

    def _present(self, connection: ssl.SSLObject, *_: object) -> None:
        if (stamp := self._now()) != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._load()
            except InvalidContent as error:
                self._on_failure(error)  # the second of the two files may only be about to be written
        connection.context = self._context

    def _now(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._chain, self._key))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._chain, self._key)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidContent(
                f"the certificate {self._chain} and its key can't be used: {error.strerror or error}",
                hint="both are PEM files, the certificate comes first in its chain"
                + (", and its key is in the same file, or in that of --tls-key" * (self._key == self._chain)),
            ) from error
        return context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # loading says why
    return status.st_ino, status.st_mtime_ns, status.st_size
