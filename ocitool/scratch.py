"""Temporary files for what has to be whole before any of it can be used."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Self

from ocitool.errors import OciError

if TYPE_CHECKING:
    from io import FileIO
    from typing import IO


def write_all(file: IO[bytes] | FileIO, data: bytes) -> None:
    """Write to a file without buffer, which may take a part at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class Scratch:
    """A temporary file without a name, whose every failure says where it was and what helps.

    It is written without a buffer: what a full disk has refused would be written again when the file is
    closed, and that error would hide the first one.
    """

    def __init__(self, what: str) -> None:
        """Make the file.

        Args:
            what: what is kept in it, for the message.

        Raises:
            OciError: it can't be made.
        """
        self._what = what
        try:
            self.file: FileIO = tempfile.TemporaryFile("w+b", 0, prefix="ocitool-")  # noqa: SIM115 - see `__exit__`
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes, /) -> None:
        """Add all of this.

        Raises:
            OciError: it can't be written.
        """
        try:
            write_all(self.file, data)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OciError:
        return OciError(
            f"{self._what} can't be kept until it is complete: {error.strerror}"
            f" in the directory for temporary files, {tempfile.tempdir or 'which is not there'}",
            hint="name another directory in TMPDIR",
        )
