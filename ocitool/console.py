"""What a person or a CI log sees: progress, results and errors.

Results go to stdout, all else to stderr, so that `$(ocitool pull …)` is a digest and nothing more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import unicodedata
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from ocitool.errors import OciError
from ocitool.events import Advanced, Event, Finished, Noted, Planned, Retrying, Started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tqdm import tqdm

    from ocitool.digest import Digest
    from ocitool.model import Descriptor

_HEARTBEAT: Final = 10.0  # seconds between two lines of a long transfer; CI systems end a job that is silent
_BAR_BYTES: Final = 1 << 20  # smaller content is gone before a bar could be read


class Progress(Enum):
    """How progress is shown."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


class Listener(Protocol):
    """A listener of events that must be closed."""

    def __call__(self, event: Event, /) -> None:
        """See `ocitool.events`."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def listener(progress: Progress) -> Listener:
    """The listener for a way of showing progress; `AUTO` means bars on a terminal and lines elsewhere."""
    if progress is Progress.AUTO:
        plain = not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))
        progress = Progress.PLAIN if plain else Progress.BAR
    kinds: dict[Progress, Callable[[], Listener]] = {
        Progress.BAR: _Bars,
        Progress.JSON: _JsonLines,
        Progress.PLAIN: _Lines,
    }
    return _UntilClosed(kinds.get(progress, _Quiet)())


class _UntilClosed:
    """Passes events on, one at a time, until it is closed: threads may go on when the end has been told."""

    def __init__(self, kind: Listener) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, event: Event, /) -> None:
        with self._lock:
            if not self._closed:
                self._kind(event)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._kind.close()


class _Quiet:
    """Shows only what a person must know."""

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Noted):
            say(event.message)

    def close(self) -> None:
        """Nothing is open."""


class _Lines:
    """A line for each piece of content, and one every few seconds while nothing else is said."""

    def __init__(self) -> None:
        self._total = self._moved = self._skipped = 0
        self._last = time.monotonic()

    def __call__(self, event: Event, /) -> None:
        if line := self._line(event):
            self._last = time.monotonic()
            say(line)

    def _line(self, event: Event) -> str:
        match event:
            case Planned(descriptors):
                self._total = sum(desc.size for desc in descriptors)
            case Started(_, offset) if offset:
                self._moved += offset
                return f"resuming {_short(event.descriptor)} at {size(offset)}"
            case Advanced(_, count):
                self._moved += count
                if time.monotonic() - self._last >= _HEARTBEAT:
                    return f"{size(self._moved)} of {size(self._total)}"
            case Finished(desc, "skipped"):
                self._skipped += 1
                self._total -= desc.size
            case Finished(desc, how):
                return f"{how} {_short(desc)} ({size(desc.size)})"
            case Retrying(what, why, delay):
                return f"trying {_plain_digest(what)} again{f' in {delay:.1f} s' if delay else ''}: {why}"
            case Noted(message):
                return message
            case _:
                pass
        return ""

    def close(self) -> None:
        if self._skipped:
            say(f"{self._skipped} there already")


class _Bars:
    """One bar for each large blob on its way, and notes above them."""

    def __init__(self) -> None:
        self._bars: dict[Digest, tqdm[Any]] = {}

    def __call__(self, event: Event, /) -> None:
        from tqdm import tqdm

        match event:
            case Started(desc, offset) if desc.size >= _BAR_BYTES:
                self._close(desc)
                self._bars[desc.digest] = tqdm(
                    desc=_short(desc), total=desc.size, initial=offset, unit="B", unit_scale=True,
                    unit_divisor=1024, leave=False, file=sys.stderr, mininterval=0.2,
                )  # fmt: skip
            case Advanced(desc, count):
                if bar := self._bars.get(desc.digest):
                    bar.update(count)
            case Finished(desc, how):
                self._close(desc)
                if how != "skipped" and desc.size >= _BAR_BYTES:
                    tqdm.write(f"{how} {_short(desc)} ({size(desc.size)})", file=sys.stderr)
            case Retrying(what, why, _):
                tqdm.write(printable(f"trying {_plain_digest(what)} again: {why}"), file=sys.stderr)
            case Noted(message):
                tqdm.write(printable(message), file=sys.stderr)
            case _:
                pass

    def _close(self, desc: Descriptor) -> None:
        if bar := self._bars.pop(desc.digest, None):
            bar.close()

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


class _JsonLines:
    """Each event as one JSON object in a line; docs/reference/events.md has the schema."""

    def __call__(self, event: Event, /) -> None:
        line = json.dumps({"version": 1, "event": type(event).__name__.lower(), **_fields(event)})
        _write(line)

    def close(self) -> None:
        """Nothing is open."""


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case Planned(descriptors):
            return {"count": len(descriptors), "bytes": sum(desc.size for desc in descriptors)}
        case Started(desc, offset):
            return {**_content(desc), "offset": offset}
        case Advanced(desc, count):
            return {"digest": str(desc.digest), "bytes": count}
        case Finished(desc, how):
            return {**_content(desc), "how": how}
        case Retrying(what, why, delay):
            return {"what": what, "why": why, "delay": delay}
        case Noted(message):
            return {"message": message}


def _content(desc: Descriptor) -> dict[str, Any]:
    return {"digest": str(desc.digest), "size": desc.size, "mediaType": desc.media_type}


def _short(desc: Descriptor) -> str:
    return f"{desc.digest.algorithm}:{desc.digest.short}"


def _plain_digest(text: str) -> str:
    return text[:19] if text.startswith("sha256:") else text


def size(count: int) -> str:
    """A number of bytes as people read it."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def say(text: str) -> None:
    """One line on stderr."""
    _write(printable(text))


def _write(line: str) -> None:
    """A line for whoever listens on stderr; where nobody does any more, the work goes on."""
    with suppress(OSError):
        sys.stderr.write(line + "\n")


def result(text: str) -> None:
    """A line of the result on stdout; what strangers wrote can't move the cursor."""
    result_bytes((printable(text) + "\n").encode())


def result_path(path: Path) -> None:
    """A file or directory that the user named: by its own bytes, so that programs find it, or as `result`.

    On a terminal it is fit to be shown, as ls(1) does it.
    """
    if sys.stdout.isatty():
        result(str(path))
    else:
        result_bytes(os.fsencode(path) + b"\n")


def result_json(value: Any) -> None:
    """The result as JSON on stdout."""
    result_bytes((json.dumps(value, indent=2) + "\n").encode())


def table(rows: list[tuple[str, ...]]) -> None:
    """Rows on stdout, the first one being their heads, in columns."""
    widths = [max(len(printable(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(map(printable, row), widths, strict=True))
        result("  ".join(cells).rstrip())


def result_bytes(content: bytes) -> None:
    """The result on stdout, byte for byte, so that its digest can be taken.

    Raises:
        BrokenPipeError: whoever read it has enough of it.
        OciError: it can't be written.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OciError(f"the result can't be written to stdout: {error.strerror}") from error


def printable(text: str) -> str:
    """Text without what could move a cursor or hide other text: control and direction characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char.isprintable() and unicodedata.category(char) != "Cf":
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def report(error: BaseException) -> int:
    """Say on stderr what went wrong, once, and return the exit code.

    This is the one place where exceptions become text.
    """
    if isinstance(error, OciError):
        say(f"ocitool: {error}")
        for note in getattr(error, "__notes__", ()):
            say(f"  {note}")
        if error.hint:
            say(f"  {error.hint}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        say("ocitool: interrupted")
        return 130
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        say(f"ocitool: {error.strerror or error}{where}")
        return OciError.exit_code
    say(f"ocitool: this is a defect: {type(error).__name__}: {error}")
    say("  please report it, with what --debug prints")
    return OciError.exit_code
