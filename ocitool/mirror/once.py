"""Answers that several threads need and that are asked for once."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class Once(Generic[K, V]):
    """Answers that are asked for once, whoever needs them first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[K, Future[V]] = {}

    def get(self, key: K, find: Callable[[], V]) -> V:
        """The answer; who asks at the same time waits for it."""
        with self._lock:
            future = self._futures.get(key)
            first = future is None
            if future is None:
                future = self._futures[key] = Future()
        if first:
            try:
                future.set_result(find())
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def known(self, key: K) -> V | None:
        """The answer, if it is there by now; no one waits for it, and no one asks."""
        with self._lock:
            future = self._futures.get(key)
        return future.result() if future and future.done() and not future.exception() else None
