"""Budgets: bytes a second, and manifests read from a host within some time, kept across runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ocitool import strictjson
from ocitool.errors import Conflict, InvalidContent, InvalidReference, OciError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ocitool.streams import Reader

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_STATE: Final = 16 << 20


def rate(text: str) -> int:
    """Read a number of bytes a second: `500K`, `20M`, `1.5G`.

    Raises:
        InvalidReference: it is none.
    """
    match = re.fullmatch(
        r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([KMG]?)i?(?:B(?:/s)?)?", text.strip(), re.IGNORECASE
    )
    result = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if result < 1:
        raise InvalidReference(f"{text!r:.40} is not a rate, as 500K or 20M (bytes a second)")
    return result


@dataclass(frozen=True, slots=True)
class PullLimit:
    """So many manifests within so many seconds."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> PullLimit:
        """Read `80/6h`.

        Raises:
            InvalidReference: it does not follow the grammar.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{0,6})([smhd])", text.strip())
        if match is None or int(match[1]) < 1 or int(match[2] or 1) < 1:
            raise InvalidReference(f"{text!r:.40} is not a number of pulls in some time, as 80/6h")
        return cls(int(match[1]), int(match[2] or 1) * _SECONDS[match[3]])


class TokenBucket:
    """Lets so many bytes a second pass, over all threads together.

    Half a second's worth may pass at once, so that the pauses are few and the average is right.
    """

    def __init__(
        self,
        per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        # When what has been let through will have been paid for.
        self._paid = clock()

    @property
    def burst(self) -> int:
        """The most that should be asked for at once, in bytes."""
        return max(self._rate // 2, 1)

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may have passed."""
        with self._lock:
            now = self._clock()
            # What was not used half a second ago is lost: a pause gives no right to a flood.
            self._paid = max(self._paid, now - 0.5) + count / self._rate
            delay = self._paid - now
        if delay > 0:
            self._sleep(delay)


class LimitedReader:
    """Passes on bytes no faster than a bucket allows."""

    def __init__(self, reader: Reader, bucket: TokenBucket) -> None:
        self._reader = reader
        self._bucket = bucket

    def read(self, n: int = -1, /) -> bytes:
        """Read on, perhaps less than asked for, and pay for it afterwards."""
        if n < 0:
            from ocitool.streams import chunks

            return b"".join(chunks(self))
        data = self._reader.read(min(n, self._bucket.burst))
        self._bucket.take(len(data))
        return data


class PullBudget:
    """Counts the manifests read from each host, in a file that all runs share.

    The window slides: a pull is forgotten once it is as old as the limit says. Pulls are written down before
    they are made, so that a run that is killed has been counted.
    """

    def __init__(
        self,
        limits: Mapping[str, PullLimit],
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Count in `file`; None counts for this run alone."""
        self._limits = dict(limits)
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, list[float]] = {}

    def take(self, host: str) -> None:
        """Count one pull.

        Raises:
            Conflict: the budget is used up; nothing has been counted.
        """
        limit = self._limits.get(host)
        if limit is None:
            return
        with self._lock, self._kept() as pulls:
            now = self._clock()
            # A clock that was set back must not lock everybody out.
            recent = [moment for moment in pulls.get(host, []) if now - limit.seconds < moment <= now]
            if len(recent) >= limit.count:
                wait = recent[-limit.count] + limit.seconds - now
                raise Conflict(
                    f"the budget of {limit.count} pulls from {host} is used up",
                    hint=f"the next is free in {_duration(wait)}; run again then, and it goes on from here",
                )
            pulls[host] = [*recent, now]

    def left(self, host: str) -> int | None:
        """How many pulls are left now; None where there is no limit."""
        limit = self._limits.get(host)
        if limit is None:
            return None
        with self._lock, self._kept() as pulls:
            now = self._clock()
            return limit.count - sum(now - limit.seconds < moment <= now for moment in pulls.get(host, []))

    @contextmanager
    def _kept(self) -> Iterator[dict[str, list[float]]]:
        """The pulls of all runs, written back where the body changes them."""
        if self._file is None:
            yield self._own
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OciError(f"the count of pulls {self._file} can't be opened: {error.strerror}") from error
        with os.fdopen(fd, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            pulls = _read(file.read(_MAX_STATE), str(self._file))
            before = json.dumps(pulls)
            yield pulls
            after = json.dumps(pulls)
            if after != before:
                file.seek(0)
                file.truncate()
                file.write(after.encode())


def _read(raw: bytes, what: str) -> dict[str, list[float]]:
    try:
        fields = strictjson.load_object(raw, what)
    except InvalidContent:
        # It is new, or a full disk has cut it. To forget some pulls is better than to refuse all work.
        return {}
    return {
        host: sorted(moment for moment in moments if isinstance(moment, int | float))
        for host, moments in fields.items()
        if isinstance(moments, list)
    }


def _duration(seconds: float) -> str:
    minutes = max(int(seconds + 59) // 60, 1)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
