"""Figures for Prometheus, in its text format 0.0.4."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.serve.service import Served

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)  # seconds


class Metrics:
    """Counts what was served. Its labels take few values, whatever clients ask for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._durations: Counter[float] = Counter()
        self._seconds = 0.0
        self.in_flight = 0

    def count(self, served: Served) -> None:
        """Add a request."""
        method = (
            served.method if served.method in {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} else "other"
        )
        with self._lock:
            self._requests[method, served.route or "other", served.status] += 1
            self._bytes["received"] += served.received
            self._bytes["sent"] += served.sent
            self._durations[next((b for b in _BUCKETS if served.seconds <= b), float("inf"))] += 1
            self._seconds += served.seconds

    def render(self, uploads: int) -> bytes:
        """The figures as Prometheus reads them."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(uploads)).encode()

    def _lines(self, uploads: int) -> Iterator[str]:
        yield "# HELP ocitool_requests_total Requests answered."
        yield "# TYPE ocitool_requests_total counter"
        for (method, route, status), count in sorted(self._requests.items()):
            yield f'ocitool_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
        for direction in ("received", "sent"):
            yield f"# HELP ocitool_{direction}_bytes_total Bytes of bodies {direction}."
            yield f"# TYPE ocitool_{direction}_bytes_total counter"
            yield f"ocitool_{direction}_bytes_total {self._bytes[direction]}"
        yield "# HELP ocitool_request_seconds Time from a request's head to the end of its answer."
        yield "# TYPE ocitool_request_seconds histogram"
        bounds = (*_BUCKETS, float("inf"))
        counts = list(accumulate(self._durations[bound] for bound in bounds))
        for bound, count in zip(bounds, counts, strict=True):
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'ocitool_request_seconds_bucket{{le="{label}"}} {count}'
        yield f"ocitool_request_seconds_sum {self._seconds:.6f}"
        yield f"ocitool_request_seconds_count {counts[-1]}"
        yield "# HELP ocitool_requests_in_flight Requests that are being answered."
        yield "# TYPE ocitool_requests_in_flight gauge"
        yield f"ocitool_requests_in_flight {self.in_flight}"
        yield "# HELP ocitool_uploads_in_flight Uploads that have begun and not ended."
        yield "# TYPE ocitool_uploads_in_flight gauge"
        yield f"ocitool_uploads_in_flight {uploads}"
