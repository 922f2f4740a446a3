"""The one thread pool: the same work for many items, several at once.

Hashing, inflating, sockets and files let other threads run, so threads are enough. Only work that waits for
no other work of the same pool is given to it, and only its user waits; so no pool is too small.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

T = TypeVar("T")
R = TypeVar("R")

JOBS: Final = 4
"""How many blobs move at once; more seldom helps with one registry, and is rude to it."""

_WAKE: Final = 0.5  # seconds after which whoever waits looks for an interrupt that it missed


def each(work: Callable[[T], R], items: Iterable[T], *, jobs: int = JOBS) -> list[R]:
    """Do the same with every item, several at once; the first failure stops the rest and is raised.

    The work may not wait for other items' work.
    """
    with Workers(jobs, threading.Event()) as workers:
        return workers.each(work, items)


class Workers:
    """The thread pool. Only work that waits for no other work of the same pool is given to it.

    Its threads are daemons, which those of the standard library's pool are not: whoever interrupts waits
    for no peer that says nothing, neither here nor when the interpreter exits.
    """

    def __init__(self, jobs: int, stop: threading.Event) -> None:
        if jobs < 1:
            raise ValueError("a copy needs at least one job")
        self._stop = stop
        self._failures: list[BaseException] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"ocitool-copy-{n}", daemon=True) for n in range(jobs)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for _thread in self._threads:
            self._tasks.put(None)
        # Whoever handles an error finds nothing still going on; whoever interrupts does not wait.
        if kind is None or issubclass(kind, Exception):
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while task := self._tasks.get():
            # Who waited for this task has been told of a failure, or is about to be.
            if not self._stop.is_set():
                task()

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same with every item; the first failure stops the rest and is raised."""
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(Future())
                self._tasks.put(partial(self._fulfil, futures[-1], work, item))
            # A signal that comes just before a wait begins does not end it; so no wait is a long one.
            while wait(futures, _WAKE, FIRST_EXCEPTION).not_done and not self._failures:
                pass
        except BaseException:
            self._stop.set()
            raise
        if self._failures:
            raise self._failures[0]
        return [future.result() for future in futures]

    def _fulfil(self, future: Future[R], work: Callable[[T], R], item: T) -> None:
        try:
            future.set_result(work(item))
        except BaseException as error:  # noqa: BLE001 - `each` raises it
            # In this order, so that what is stopped by a failure never comes before it.
            self._failures.append(error)
            self._stop.set()
            future.set_exception(error)
